"""An engine as a deployment of Ray Serve: a stream a request, and calls; nothing of Ray is needed.

What goes wrong is sent as data, so that it is the same sentence on the page.
"""

import asyncio
import logging
import os
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

from ramole_core.errors import RamoleError
from ramole_core.process_memory import settle
from ramole_core.request import Generation
from ramole_core.serving.fleet import Item, PageSilent
from ramole_core.serving.leases import Leases
from ramole_core.serving.wire import Job, News
from ramole_core.settings import Settings

log = logging.getLogger(__name__)
SPARE_THREADS = 16
"""For calls that are no answers."""


@dataclass(frozen=True)
class Reply:
    """The result of a call."""

    value: object = None
    error: Exception | None = None


@dataclass
class Running:
    """A running request."""

    page: str
    cancelled: threading.Event = field(default_factory=threading.Event)
    given_up: bool = False
    """Because its page is gone."""


class Answering(Protocol):
    """The interface of an `EngineServer`, or of a simulated one."""

    def answer(
        self, job: Job, deliver: Callable[[News], None], *, cancelled: Callable[[], bool]
    ) -> None: ...

    def stats(self) -> Mapping[str, int | float]: ...


class ServedEngine:
    """One replica. Each call's first argument, the engine's id, is for the router."""

    def __init__(self, settings: dict[str, object], make: str):
        """`settings` over those of the environment; `make` names what makes the engine from them,
        as `module:function`."""
        said = Settings(**settings)  # pyright: ignore[reportArgumentType] checked by pydantic
        self._threads = ThreadPoolExecutor(said.max_batch + said.max_queue + SPARE_THREADS)
        self._engine: Answering = located(make)(said)
        self._open: dict[str, Running] = {}
        """The requests that run, by their numbers."""
        self._leases = Leases(self._give_up)
        settle()

    async def answer(self, to: str, job: Job) -> AsyncIterator[Sequence[Item]]:
        """Stream a request's results; closing the stream cancels it."""
        loop = asyncio.get_running_loop()
        news: asyncio.Queue[Item | None] = asyncio.Queue()
        one = self._open[job.number] = Running(job.page)
        self._leases.renew(job.page)

        def deliver(item: Item | None) -> None:
            if one.given_up and isinstance(item, Generation):
                item = PageSilent(to)
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
        """Call the engine's method."""
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
        """Cancel what runs for a page that is gone."""
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
    from importlib import import_module

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
