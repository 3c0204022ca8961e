"""The commands that list: `methods` with what they need, kept `mixes`, the `hub`'s adapters."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ramole_core.cli.opening import Json, Owner, opened
from ramole_core.errors import RamoleError
from ramole_core.facts import facts_of
from ramole_core.methods import DEFAULT_METHOD, METHOD_LIST, find_row
from ramole_core.settings import load_settings
from ramole_core.terminal.console import progress_bar, say, write_json, write_table
from ramole_core.weights_here import WeightsHere

if TYPE_CHECKING:
    from ramole_core.hub import Listed


def methods(
    name: Annotated[str | None, typer.Argument(help="Show what its options mean.")] = None,
    as_json: Json = False,
) -> None:
    """The composition methods: their options, papers, and whether they can answer here."""
    settings = load_settings()
    here = WeightsHere(
        settings.adapters_dir, base_model=settings.base_model, data_dir=settings.data_dir
    )
    usable = {row.name for row in here.methods()}
    shown = METHOD_LIST if name is None else [find_row(name)]
    if as_json:
        found = [{**asdict(row), "usable": row.name in usable} for row in shown]
        write_json({"default": DEFAULT_METHOD, "methods": found})
        return
    if name is not None:
        print(f"{name}: {shown[0].summary}")
        columns = ("option", "default", "meaning", "range")
        options = shown[0].options
        write_table(columns, [(one.name, one.default, one.help, one.range) for one in options])
        return
    rows = [
        (
            row.name + (" (default)" if row.name == DEFAULT_METHOD else ""),
            "yes" if row.name in usable else "needs training",
            ", ".join(f"{option.name}={option.default}" for option in row.options),
            row.paper,
        )
        for row in shown
    ]
    write_table(("name", "usable", "options", "paper"), rows)


def mixes(
    remove: Annotated[str | None, typer.Option(help="Forget the mix of this name.")] = None,
    owner: Owner = None,
    as_json: Json = False,
) -> None:
    """The mixes that were kept: adapters with the weights that were found on examples."""
    with opened() as ramole:
        if remove is not None:
            ramole.remove_mix(remove, owner)
        found = ramole.mixes(owner)
    if as_json:
        told: dict[str, object] = {"mixes": [asdict(mix) for mix in found]}
        write_json(told | ({"removed": remove} if remove else {}))
    elif remove is not None:
        print(f"Removed {remove}.")
    else:
        rows = [
            (mix.name, mix.method, f"{mix.loss:.3f}", _weights(mix.adapters, mix.weights))
            for mix in found
        ]
        write_table(("name", "method", "loss", "weights"), rows)


def _weights(names: tuple[str, ...], weights: tuple[float, ...]) -> str:
    return ", ".join(f"{name} {weight:.3f}" for name, weight in zip(names, weights, strict=True))


def hub(
    most: Annotated[
        int | None, typer.Option(min=1, help="List so many, those downloaded most first.")
    ] = None,
    anew: Annotated[bool, typer.Option("--anew", help="Read cards again that are known.")] = False,
    known: Annotated[
        bool, typer.Option("--known", help="Show what is listed; the Hub is not contacted.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Write the table here, as JSON.")] = None,
    as_json: Json = False,
) -> None:
    """List the Hub's adapters of this base model with their cards, and which fit; no weights.

    Prompts find them from then on; the weights of one come when it is to answer, or is named.
    Ctrl-C stops it, and what was read stays listed.
    """
    from ramole_core.pool.manifest import write_json as write_file

    if out is not None and out.suffix != ".json":
        raise RamoleError(f"--out {out} does not end in .json; rename it.")
    with opened() as ramole:
        if known:
            rows, told = ramole.hub.rows(), {}
        else:
            with progress_bar("The Hub") as tell:
                found = ramole.hub.search(tell, most=most, anew=anew)
            rows = list(found.rows)
            told: dict[str, object] = {
                "base": found.base,
                "read": found.read,
                "unread": dict(found.unread),
                "seconds": found.seconds,
            }
            say(str(found))
        here = ramole.hub.fetched()
        records = [{**one.record(), "fetched": one.repo in here} for one in rows]
        answer = {"listed": records, **told, **facts_of(ramole)}
    if out is not None:
        write_file(out, answer)
    if as_json:
        write_json(answer)
    else:
        columns = ("adapter", "name", "licence", "downloads", "MiB", "rank", "verdict", "why not")
        write_table(columns, [_cells(one, here) for one in rows])


def _cells(one: "Listed", here: set[str]) -> tuple[object, ...]:
    size = f"{one.bytes / 2**20:.1f}" if one.bytes else ""
    verdict = one.verdict + (", fetched" if one.repo in here else "")
    listed = (one.repo, one.name, one.licence or "", one.downloads, size, one.rank or "")
    return (*listed, verdict, one.reason)
