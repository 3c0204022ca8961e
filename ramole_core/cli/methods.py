"""The command `methods`: each method with its options, and those that lack trained weights."""

from dataclasses import asdict
from typing import Annotated

import typer

from ramole_core.cli.opening import Json
from ramole_core.methods import DEFAULT_METHOD, METHOD_LIST, find_row
from ramole_core.settings import load_settings
from ramole_core.terminal.console import write_json, write_table
from ramole_core.weights_here import WeightsHere


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
