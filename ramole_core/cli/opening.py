"""Open what answers a command, the local system or a running server; and shared options."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ramole_core.errors import RamoleError
from ramole_core.terminal.console import progress_bar, say

if TYPE_CHECKING:
    from typing_extensions import TypeIs

    from ramole_core.cli.server import Server
    from ramole_core.ramole import Ramole
    from ramole_core.request import Request

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Owner = Annotated[str | None, typer.Option(help="Whose uploads count beside the shared ones.")]
Exclude = Annotated[
    list[str] | None, typer.Option(help="An adapter that must not be found; repeat for more.")
]
REMOTE = ("add", "batch", "chat", "generate", "list", "remove", "retrieve")
"""The commands that a server supports."""
chosen_url: ContextVar[str | None] = ContextVar("chosen_url", default=None)
"""Value of `--url` for the running command."""


@contextmanager
def opened() -> Iterator["Ramole"]:
    """`Ramole`, closed at the end.

    Adapters of the Hub are allowed: whoever runs commands here had them listed.
    """
    from ramole_core.ramole import Ramole
    from ramole_core.settings import load_settings

    with Ramole(load_settings(hub_adapters=True)) as ramole:
        yield ramole


@contextmanager
def reached(owner: str | None = None, **here: object) -> Iterator["Ramole | Server"]:
    """The server that `--url` names or that runs on the data folder, else `Ramole`.

    `here`: options by name that need the model in this process; raises RamoleError where one of
    them, or an owner, is said and a server answers.
    """
    server = _server()
    if server is None:
        with opened() as ramole:
            yield ramole
        return
    try:
        for name, value in {"owner": owner, **here}.items():
            if value is not None:
                raise RamoleError(
                    f"--{name} cannot be asked of the server at {server.url}; leave it out, or "
                    "stop the server."
                )
        yield server
    finally:
        server.close()


def is_server(system: "Ramole | Server") -> "TypeIs[Server]":
    """Whether a running server answers, and not the model of this process."""
    from ramole_core.cli.server import Server

    return isinstance(system, Server)


def facts_here(system: "Ramole | Server") -> dict[str, object]:
    """Model and checksums for a command's JSON, or the server that answered."""
    from ramole_core.facts import facts_of

    return {"server": system.url} if is_server(system) else facts_of(system)


def load(system: "Ramole | Server", request: "Request | None" = None) -> None:
    """Load the model, progress shown, once the request is known to run on it; a server has its
    own."""
    from ramole_core.facts import model_notes

    if is_server(system):
        return
    if request is not None:
        system.check(request)
    with progress_bar("Getting ready") as tell:
        system.load(tell)
    for note in model_notes(system):
        say(f"Note: {note}")


def _server() -> "Server | None":
    from ramole_core.cli.server import Server
    from ramole_core.running_page import find_page
    from ramole_core.settings import load_settings

    settings, url = load_settings(), chosen_url.get() or os.environ.get("RAMOLE_URL")
    found = None if url else find_page(Path(settings.data_dir))
    if found is not None:
        say(f"Asking the page at {found.url}, which runs on {settings.data_dir}.")
        first = (settings.auth or "").partition(",")[0].strip()
        return Server(found.url, data_dir=settings.data_dir, key=found.key, auth=first or None)
    return Server(url, data_dir=settings.data_dir) if url else None
