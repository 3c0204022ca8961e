"""The commands on the pool: `list`, `add` and `remove`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from ramole_core.cli.opening import Json, Owner, facts_here, is_server, reached
from ramole_core.pool.examples_and_readme import read_example_file
from ramole_core.terminal.console import progress_bar, say, write_json, write_table

LONG = ("ranks", "scales")
"""A line for each module of each adapter."""


def list_(
    owner: Owner = None,
    full: Annotated[
        bool, typer.Option("--full", help="With --json: rank and scale of each module too.")
    ] = False,
    as_json: Json = False,
) -> None:
    """The adapters of the pool."""
    with reached(owner, full=full or None) as system:
        if is_server(system):
            cards = system.cards()
        else:
            cards = [card.as_dict() for card in system.pool.cards(owner)]
        facts = facts_here(system)
    if as_json:
        kept = [{k: v for k, v in card.items() if full or k not in LONG} for card in cards]
        write_json({"adapters": kept, **facts})
        return
    columns = ("name", "owner", "rank", "scale", "modules", "description")
    write_table(columns, [[_cell(card.get(name)) for name in columns] for card in cards])


def add(
    source: Annotated[
        list[str], typer.Argument(help="A folder, a .zip, the two files, or hf:owner/name.")
    ],
    name: Annotated[str | None, typer.Option(help="Its name in the pool.")] = None,
    examples: Annotated[
        Path | None, typer.Option(help="Example inputs: a .txt or .jsonl file, one a line.")
    ] = None,
    owner: Owner = None,
    as_json: Json = False,
) -> None:
    """Check an adapter and add it to the pool, or say why not."""
    with reached(owner) as system:
        path = source[0] if len(source) == 1 else source
        texts = read_example_file(examples) if examples else None
        card: Mapping[str, Any]
        with progress_bar("Adding") as tell:
            tell(str(source[0]), 0.1)
            if is_server(system):
                card = system.add(path, name=name, examples=texts)
                near = [(hit["name"], hit["score"]) for hit in card["neighbours"]]
                if not system.operator:
                    say("It is this user's at that server, and goes two hours after the last call.")
            else:
                made = system.pool.add(path, name=name, examples=texts, owner=owner)
                card = dict[str, Any](made.as_dict())
                hits = system.neighbours(made.name, k=3, owner=owner)
                near = [(hit.name, hit.score) for hit in hits]
        facts = facts_here(system)
    if as_json:
        names, scores = [one for one, _ in near], [score for _, score in near]
        write_json({"adapter": card, "adapters": names, "similarities": scores, **facts})
        return
    modules = ", ".join(card["modules"])
    print(f"Added {card['name']}: rank {card['rank']}, {modules}, scale {card['scale']:g}.")
    for note in card["notes"]:
        print(f"Note: {note}")
    if near:
        print("Nearest: " + ", ".join(f"{one} {score:.2f}" for one, score in near))


def remove(
    name: Annotated[str, typer.Argument(help="An adapter that was added.")],
    owner: Owner = None,
    as_json: Json = False,
) -> None:
    """Take an added adapter out of the pool; the sample pool is read-only."""
    with reached(owner) as system:
        if is_server(system):
            system.remove(name)
        else:
            system.pool.remove(name, owner=owner)
        facts = facts_here(system)
    if as_json:
        write_json({"removed": name, **facts})
    else:
        print(f"Removed {name}.")


def _cell(value: object) -> object:
    if isinstance(value, list):
        return ",".join(value)
    return f"{value:g}" if isinstance(value, float) else value or ""
