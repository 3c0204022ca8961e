"""The command `hub`: the Hub's adapters of this base, listed, and which fit."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ramole_core.cli.opening import Json, opened
from ramole_core.errors import RamoleError
from ramole_core.facts import facts_of
from ramole_core.terminal.console import progress_bar, say, write_json, write_table

if TYPE_CHECKING:
    from ramole_core.hub import Listed


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
        write_table(
            ("adapter", "name", "licence", "downloads", "MiB", "rank", "verdict", "why not"),
            _cells(rows, here),
        )


def _cells(rows: "Sequence[Listed]", here: set[str]) -> list[tuple[object, ...]]:
    return [
        (
            one.repo,
            one.name,
            one.licence or "",
            one.downloads,
            f"{one.bytes / 2**20:.1f}" if one.bytes else "",
            one.rank or "",
            one.verdict + (", fetched" if one.repo in here else ""),
            one.reason,
        )
        for one in rows
    ]
