"""The command `serve`: the page over many engines, on this machine or on a cluster of Ray's. Ray
Serve has the two applications on it, started and ended by one process."""

import json
import logging
import os
import signal
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Annotated

import typer

from ramole_core.errors import RamoleError
from ramole_core.serving.app import (
    ENGINES,
    LOGGING_CONFIG,
    PAGE,
    EnginesArgs,
    PageArgs,
    build_engines,
    build_page,
)
from ramole_core.settings import Settings, load_settings
from ramole_core.terminal.console import say

OBJECT_STORE = 2**28
"""Bytes of Ray's shared memory; messages here are small."""
IDLE_SECONDS = 20
"""Time for which Serve's proxy keeps a connection between two requests; its own are 90. How long a
request takes is not bounded: a tab's heartbeat is one, as long as the tab is open."""
POLL_SECONDS = 0.5
MADE_PAGE = "ui.mounted:mounted"


class ServeProcess:
    """Ray, its Serve, and the two applications."""

    def __init__(
        self,
        settings: Settings,
        *,
        engines: int,
        cpus: float,
        page: str,
        gpus: float = 0,
        address: str | None = None,
    ):
        """`page` names what makes the page, as `module:function`."""
        said = settings.model_dump(mode="json") | {"host": settings.listening}
        self._settings, self._address = settings, address
        self._engines = EnginesArgs(
            engines=engines,
            cpus_per_engine=cpus,
            gpus_per_engine=gpus,
            settings=said,
        )
        self._page = PageArgs(page=page, settings=said)

    def start(self) -> None:
        """Start Ray, or join it, and deploy; returns before engines or page are ready. Raises
        RamoleError where there is no such cluster."""
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # or Serve's uvicorn trusts the X-Forwarded-For of any local process
        os.environ.setdefault("FORWARDED_ALLOW_IPS", "")
        os.environ.setdefault("RAY_worker_niceness", "0")  # not behind whatever runs
        import ray
        from ray import serve

        said = self._engines
        if self._address is None:
            cores = said.engines * said.cpus_per_engine + 2
            ray.init(
                num_cpus=round(cores),
                object_store_memory=OBJECT_STORE,
                include_dashboard=False,
                logging_level=logging.ERROR,
            )
        else:
            try:
                ray.init(address=self._address, logging_level=logging.ERROR)
            except (ConnectionError, ValueError) as error:
                raise RamoleError(
                    f"No cluster of Ray's answers at {self._address} "
                    f"({type(error).__name__}); start one by `ray start --head`, or leave "
                    "--address out."
                ) from None
        http = {"host": self._settings.listening.strip("[]"), "port": self._settings.port}
        http |= {"keep_alive_timeout_s": IDLE_SECONDS}
        serve.start(http_options=http, logging_config=LOGGING_CONFIG)
        self._deploy(self._page)

    def restart(self) -> None:
        """Restart the engines in turn: each finishes its answers or hands them on."""
        self._deploy(None)

    def wait(self, ending: Callable[[], bool]) -> None:
        """Wait until the page is ready; raises RamoleError where it cannot start."""
        from ray import serve

        while not ending():
            found = serve.status().applications
            for name in (PAGE, ENGINES):
                if name in found and found[name].status == "DEPLOY_FAILED":
                    raise RamoleError(
                        f"The {name} could not be started: {_last_line(found[name].message)}"
                    )
            if PAGE in found and found[PAGE].status == "RUNNING":
                return
            time.sleep(POLL_SECONDS)

    def stop(self) -> None:
        """End the applications, and Ray where it is ours."""
        import ray
        from ray import serve

        if not ray.is_initialized():
            return
        serve.delete(PAGE)
        serve.shutdown()
        ray.shutdown()

    def _deploy(self, page: PageArgs | None) -> None:
        from ray import serve

        targets = [serve.RunTarget(build_engines(self._engines), ENGINES, None)]
        if page is not None:
            targets.append(serve.RunTarget(build_page(page), PAGE, "/"))
        serve.run_many(
            targets,
            wait_for_ingress_deployment_creation=False,
            wait_for_applications_running=False,
        )


def _last_line(message: str) -> str:
    """The last line of a traceback."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    said = [line for line in lines if "Error" in line or "Busy" in line]
    return (said or lines or ["see the logs of Ray Serve"])[-1]


def serve(
    engines: Annotated[int, typer.Option(min=1, help="How many engines.")] = 2,
    cpus_per_engine: Annotated[
        float | None, typer.Option(help="Cores of each; unsaid: the machine's, shared equally.")
    ] = None,
    gpus_per_engine: Annotated[float, typer.Option(help="GPUs of each.")] = 0,
    address: Annotated[
        str | None, typer.Option(help="A cluster of Ray's that runs; unsaid: one of its own.")
    ] = None,
    page: Annotated[str, typer.Option(help="What makes the page, as module:function.")] = MADE_PAGE,
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
    running = ServeProcess(
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
    while not told:
        time.sleep(POLL_SECONDS)
    return told.pop(0)
