"""The system opened for one command, and the options that the commands on it share."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from ramole_core.terminal.console import progress_bar, say

if TYPE_CHECKING:
    from ramole_core.ramole import Ramole

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Owner = Annotated[str | None, typer.Option(help="Whose uploads count beside the shared ones.")]
Exclude = Annotated[
    list[str] | None, typer.Option(help="An adapter that must not be found; repeat for more.")
]


@contextmanager
def opened(*, load: bool = False) -> Iterator["Ramole"]:
    """`Ramole`, closed at the end; with `load` the base model is loaded first, progress shown.

    Who may give commands may use what they had listed: adapters of the Hub are allowed.
    """
    from ramole_core.facts import model_notes
    from ramole_core.ramole import Ramole
    from ramole_core.settings import load_settings

    with Ramole(load_settings(hub_adapters=True)) as ramole:
        if load:
            with progress_bar("Getting ready") as tell:
                ramole.load(tell)
            for note in model_notes(ramole):
                say(f"Note: {note}")
        yield ramole
