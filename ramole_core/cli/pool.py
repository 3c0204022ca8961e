"""The commands on the pool: `list`, `add` and `remove`."""

from pathlib import Path
from typing import Annotated

import typer

from ramole_core.cli.opening import Json, Owner, opened
from ramole_core.facts import facts_of
from ramole_core.terminal.console import progress_bar, read_examples, write_json, write_table


def list_adapters(owner: Owner = None, as_json: Json = False) -> None:
    """The adapters of the pool."""
    with opened() as ramole:
        cards = ramole.pool.cards(owner)
        if as_json:
            records = [card.as_dict() for card in cards]
            write_json({"adapters": records, **facts_of(ramole)})
            return
    write_table(
        ("name", "owner", "rank", "scale", "modules", "description"),
        [
            (c.name, c.owner or "", c.rank, f"{c.scale:g}", ",".join(c.modules), c.description)
            for c in cards
        ],
    )


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
    with opened() as ramole:
        path = source[0] if len(source) == 1 else source
        texts = read_examples(examples) if examples else None
        with progress_bar("Adding") as tell:
            tell(str(source[0]), 0.1)
            card = ramole.pool.add(path, name=name, examples=texts, owner=owner)
        near = ramole.neighbours(card.name, k=3, owner=owner)
        if as_json:
            write_json(
                {
                    "adapter": card.as_dict(),
                    "adapters": [hit.name for hit in near],
                    "similarities": [hit.score for hit in near],
                    **facts_of(ramole),
                }
            )
            return
    print(f"Added {card.name}: rank {card.rank}, {', '.join(card.modules)}, scale {card.scale:g}.")
    for note in card.notes:
        print(f"Note: {note}")
    if near:
        print("Nearest: " + ", ".join(f"{hit.name} {hit.score:.2f}" for hit in near))


def remove(
    name: Annotated[str, typer.Argument(help="An adapter that was added.")],
    owner: Owner = None,
    as_json: Json = False,
) -> None:
    """Take an added adapter out of the pool; the sample pool is read-only."""
    with opened() as ramole:
        ramole.pool.remove(name, owner=owner)
        if as_json:
            write_json({"removed": name, **facts_of(ramole)})
            return
    print(f"Removed {name}.")
