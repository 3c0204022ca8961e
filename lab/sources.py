"""Where the rows of the sample pool's tasks come from: one line a task, with its licence.

    python -m lab sources

Rows themselves are other people's, so none is in the repository.
"""

import re
from pathlib import Path
from typing import Annotated

import typer

from ramole_core.settings import load_settings
from ramole_core.terminal.console import write_json, write_table

SAID = re.compile(r"The data: (.+?); licence: (.+?)\.?$", re.MULTILINE)


def main(
    out: Annotated[Path | None, typer.Option(help="Write them here, as JSON.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List the tasks of the sample pool with the source of their rows, as the cards say it."""
    from ramole_core.pool.manifest import write_json as write_file

    found = {}
    for card in sorted(load_settings().adapters_dir.glob("[!_]*/README.md")):
        said = SAID.search(card.read_text(encoding="utf-8"))
        if said is not None:
            found[card.parent.name] = {"source": said[1], "licence": said[2]}
    if out is not None:
        write_file(out, {"tasks": found})
    if as_json:
        write_json({"tasks": found})
    else:
        rows = [(name, one["source"], one["licence"]) for name, one in found.items()]
        write_table(("task", "source", "licence"), rows)
