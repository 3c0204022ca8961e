"""The command `methods`: what can answer here, with its options, and what lacks trained weights."""

from dataclasses import asdict

from ramole_core.cli.opening import Json
from ramole_core.methods import DEFAULT_METHOD, METHOD_LIST
from ramole_core.settings import load_settings
from ramole_core.terminal.console import write_json, write_table
from ramole_core.weights_here import WeightsHere


def methods(as_json: Json = False) -> None:
    """The composition methods: their options, papers, and whether they can answer here."""
    settings = load_settings()
    here = WeightsHere(
        settings.adapters_dir, base_model=settings.base_model, data_dir=settings.data_dir
    )
    usable = {row.name for row in here.methods()}
    if as_json:
        found = [{**asdict(row), "usable": row.name in usable} for row in METHOD_LIST]
        write_json({"default": DEFAULT_METHOD, "methods": found})
        return
    rows = [
        (
            row.name + (" (default)" if row.name == DEFAULT_METHOD else ""),
            "yes" if row.name in usable else "needs training",
            ", ".join(f"{option.name}={option.default}" for option in row.options),
            row.paper,
        )
        for row in METHOD_LIST
    ]
    write_table(("name", "usable", "options", "paper"), rows)
