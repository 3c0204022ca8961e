"""An engine as a deployment of Ray Serve: a stream a request, and calls; nothing of Ray is needed.

Errors are sent as data, so that the page shows the same sentence. What runs for a page is given up
once that page is gone (`Leases`).
"""

import asyncio
import logging
import os
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from ramole_core.errors import RamoleError
from ramole_core.process_memory import settle
from ramole_core.request import Generation
from ramole_core.serving.fleet import Item, PageLost
from ramole_core.serving.wire import Job
from ramole_core.settings import Settings

log = logging.getLogger(__name__)
SPARE_THREADS = 16
"""Threads for calls other than answers."""
LEASE_SECONDS = 30.0
"""Seconds without a renewal after which a page counts as gone."""
POLL_SECONDS = 1.0


@dataclass(frozen=True)
class Reply:
    value: object = None
    error: Exception | None = None


@dataclass
class RunningRequest:
    """A running request."""

    page: str
    cancelled: threading.Event = field(default_factory=threading.Event)
    given_up: bool = False
    """Whether it was cancelled because its page is gone."""


class Leases:
    """The leases of pages at one engine; all of it runs in one event loop.

    Nothing is lost by a lease that ends: a page that was only slow gets the error of a lost engine,
    and sends the request again with the tokens that it has. Silence is counted in turns of the loop
    that serves the pages, not by a clock: a loop that stood still, because the engine was busy or
    its machine was, has not looked, and counts one look for all of that time.
    """

    def __init__(self, gone: Callable[[str], None]):
        """`gone` is called with each page whose lease ended."""
        self._gone = gone
        self._looks: dict[str, int] = {}
        """When each page last called."""
        self._watching: asyncio.Task[None] | None = None

    def renew(self, page: str) -> None:
        """Renew the page's lease; "" is no page."""
        if not page:
            return
        self._looks[page] = 0
        if self._watching is None or self._watching.done():
            self._watching = asyncio.get_running_loop().create_task(self._watch())

    async def _watch(self) -> None:
        while self._looks:
            await asyncio.sleep(POLL_SECONDS)
            for page in list(self._looks):
                self._looks[page] += 1
                if self._looks[page] * POLL_SECONDS > LEASE_SECONDS:
                    del self._looks[page]
                    self._gone(page)


class ServedEngine:
    """One replica. Each call's first argument, the engine's id, is for the router."""

    def __init__(self, settings: dict[str, object], make: str):
        """`settings` over those of the environment; `make` names what makes the engine from them,
        as `module:function`."""
        said = Settings(**settings)  # pyright: ignore[reportArgumentType] checked by pydantic
        self._threads = ThreadPoolExecutor(said.max_batch + said.max_queue + SPARE_THREADS)
        self._engine: Any = located(make)(said)
        self._open: dict[str, RunningRequest] = {}
        """The requests that run, by their numbers."""
        self._leases = Leases(self._give_up)
        settle()

    async def answer(self, to: str, job: Job) -> AsyncIterator[Sequence[Item]]:
        """Stream a request's results; closing the stream cancels it."""
        loop = asyncio.get_running_loop()
        news: asyncio.Queue[Item | None] = asyncio.Queue()
        one = self._open[job.number] = RunningRequest(job.page)
        self._leases.renew(job.page)

        def deliver(item: Item | None) -> None:
            if one.given_up and isinstance(item, Generation):
                item = PageLost(to)
            loop.call_soon_threadsafe(news.put_nowait, item)

        def run() -> None:
            try:
                self._engine.answer(job, deliver, cancelled=one.cancelled.is_set)
            except Exception as error:
                deliver(_as_sent(error))
            deliver(None)

        running = loop.run_in_executor(self._threads, run)
        try:
            open_ = True
            while open_:
                items = [await news.get()]
                while not news.empty():
                    items.append(news.get_nowait())
                open_ = items[-1] is not None
                if heard := [item for item in items if item is not None]:
                    yield heard
            await running
        finally:
            one.cancelled.set()
            del self._open[job.number]

    async def call(self, to: str, name: str, *args: object) -> Reply:
        loop = asyncio.get_running_loop()
        try:
            if name == "process":
                return Reply(os.getpid())
            if name == "here":
                return Reply(self._leases.renew(str(args[0])))
            if name == "cancel":
                return Reply(self._cancel(str(args[0])))
            method = getattr(self._engine, name)
            return Reply(await loop.run_in_executor(self._threads, method, *args))
        except Exception as error:
            return Reply(error=_as_sent(error))

    def _cancel(self, number: str) -> bool:
        """End a request early; False: it is not here, or has ended."""
        running = self._open.get(number)
        if running is not None:
            running.cancelled.set()
        return running is not None

    def _give_up(self, page: str) -> None:
        for one in self._open.values():
            if one.page == page:
                one.given_up = True
                one.cancelled.set()

    def check_health(self) -> None:
        """Raise where the engine is dead, so that the process is restarted."""
        if not getattr(self._engine, "alive", True):
            raise RuntimeError("the thread that runs the model has ended")


def located(name: str) -> Any:
    """`module:function` -> the function; raises RamoleError."""
    module, _, function = name.partition(":")
    try:
        return getattr(import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise RamoleError(
            f"{name!r} names nothing that can be served ({error}); give module:function."
        ) from None


def _as_sent(error: Exception) -> Exception:
    """The error as sent: a sentence for the user, or a fault's type without its message."""
    if isinstance(error, RamoleError):
        return error
    log.error("A request failed in the engine: %s", type(error).__name__)
    return RuntimeError(f"a request failed in an engine: {type(error).__name__}")
