"""The command `serve`: the page over many engines, on this machine or on a cluster of Ray's."""

import json
import os
import signal
import time
from importlib.util import find_spec
from typing import Annotated

import typer

from ramole_core.errors import RamoleError
from ramole_core.serving.running import Running
from ramole_core.settings import load_settings
from ramole_core.terminal.console import say

PAGE = "ui.mounted:mounted"
POLL_SECONDS = 0.5


def serve(
    engines: Annotated[int, typer.Option(min=1, help="How many engines.")] = 2,
    cpus_per_engine: Annotated[
        float | None, typer.Option(help="Cores of each; unsaid: the machine's, shared equally.")
    ] = None,
    gpus_per_engine: Annotated[float, typer.Option(help="GPUs of each.")] = 0,
    address: Annotated[
        str | None, typer.Option(help="A cluster of Ray's that runs; unsaid: one of its own.")
    ] = None,
    page: Annotated[str, typer.Option(help="What makes the page, as module:function.")] = PAGE,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object once the page listens.")
    ] = False,
) -> None:
    """The page over several engines, by Ray Serve; SIGHUP starts the engines anew, in turn."""
    if find_spec("ray") is None:
        raise RamoleError(
            "Several engines need Ray Serve, which is not installed; run `make setup SERVE=1`, or "
            "`pip install 'ramole[serve]'`."
        )
    settings = load_settings()
    cores = cpus_per_engine or max(1, (os.cpu_count() or 1) // engines)
    running = Running(
        settings, engines=engines, cpus=cores, gpus=gpus_per_engine, address=address, page=page
    )
    told: list[int] = []

    def listen() -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda number, frame: told.append(number))

    listen()
    try:
        running.start()
        listen()  # Ray has set its own
        running.wait(lambda: bool(told))
        if not told:
            listens = json.dumps({"url": settings.url, "engines": engines})
            print(listens if as_json else f"RAMoLE listens on {settings.url}", flush=True)
        while _next(told) == signal.SIGHUP:
            say("The engines are started anew, in turn.")
            running.restart()
    finally:
        running.stop()


def _next(told: list[int]) -> int:
    """Wait for the next signal."""
    while not told:
        time.sleep(POLL_SECONDS)
    return told.pop(0)
