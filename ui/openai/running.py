"""The running requests of one call, for an event loop."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractContextManager, suppress

from ramole_core import Busy, Ramole, RamoleError, Request

from ..model.reading import PACE, Reading


class RequestSlots:
    """The limit of running requests of this API; thread-safe."""

    def __init__(self, most: int):
        self._left, self._most, self._lock = most, most, threading.Lock()

    def take(self, count: int = 1) -> None:
        """Take places; raises Busy where there are too few, RamoleError where there never are as
        many."""
        if count > self._most:
            raise RamoleError(
                f"{count} answers are asked for at once, and this server has {self._most} places; "
                "ask for fewer."
            )
        with self._lock:
            if self._left < count:
                raise Busy(
                    f"The server is busy: {self._most} requests are on their way; try again in a "
                    "moment."
                )
            self._left -= count

    def give_back(self, count: int = 1) -> None:
        """Return places."""
        with self._lock:
            self._left += count


class Running(Reading):
    """Requests that run from construction on, inside an event loop."""

    def __init__(
        self, ramole: Ramole, requests: Sequence[Request], *, address: str, places: RequestSlots
    ):
        """Raises Busy or RamoleError where `places` has too few."""
        places.take(len(requests))
        self._news, loop = asyncio.Event(), asyncio.get_running_loop()
        self._over = False

        def tell() -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody waits
                loop.call_soon_threadsafe(self._news.set)

        def after(reading: Reading) -> None:
            places.give_back(len(requests))
            self._over = True
            tell()

        owner = requests[0].owner
        try:
            super().__init__(
                ramole, requests, session=owner, address=address, begun=tell, after=after
            )
        except Exception:  # such as no thread: nothing runs
            places.give_back(len(requests))
            raise

    @property
    def place(self) -> int:
        """The first waiting request's place in the queue; 0: none waits (yet)."""
        return min((place for place in self.places.values() if place), default=0)

    async def looks(self, alive: AbstractContextManager) -> AsyncGenerator[None, None]:
        """Yield whenever an update is due: at the first token at once, last after the end;
        `alive` is held meanwhile. Raises the model's error. Leaving it before the end cancels
        the requests."""
        try:
            with alive, PACE.stream() as pause:
                over = False
                while not over:
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self._news.wait(), pause())
                    self._news.clear()
                    over = self._over  # what ends while somebody looks is looked at again
                    if over and self.error is not None:
                        raise self.error
                    yield
        finally:
            self.cancelled.set()
