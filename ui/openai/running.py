"""Requests of one call on their way, as an event loop sees them: it waits for nothing that another
could use."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractContextManager, suppress
from typing import TYPE_CHECKING

from ramole_core import Busy, Generation, Request, Step

from ..model.pace import PACE
from ..model.reading import Reading

if TYPE_CHECKING:
    from ramole_core import Ramole


class Places:
    """How many requests of this door may be on their way at once; any thread may use it."""

    def __init__(self, most: int):
        self._left, self._most, self._lock = most, most, threading.Lock()

    def take(self, count: int = 1) -> None:
        """Raise Busy where there are not so many."""
        with self._lock:
            if self._left < count:
                raise Busy(
                    f"The server is busy: {self._most} requests are on their way; try again in a "
                    "moment."
                )
            self._left -= count

    def give_back(self, count: int = 1) -> None:
        """They have ended."""
        with self._lock:
            self._left += count


class Running:
    """Begins at once; made inside an event loop."""

    def __init__(
        self, ramole: "Ramole", requests: Sequence[Request], *, address: str, places: Places
    ):
        """Raises Busy where `places` has too few."""
        places.take(len(requests))
        self.requests = requests
        self._news, loop = asyncio.Event(), asyncio.get_running_loop()
        self._over = False

        def tell() -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody waits
                loop.call_soon_threadsafe(self._news.set)

        def after(reading: Reading) -> None:
            places.give_back(len(requests))
            self._over = True
            tell()

        self._reading = Reading(
            ramole,
            requests,
            session=requests[0].owner,
            address=address,
            begun=tell,
            after=after,
        )

    @property
    def steps(self) -> list[list[Step]]:
        """Those that came, of each request."""
        return self._reading.steps

    @property
    def answers(self) -> list[Generation]:
        """Once all are over."""
        return [self._reading.answers[n] for n in range(len(self.requests))]

    @property
    def place(self) -> int:
        """In the queue, of the first that waits; 0: none does, or they are only being prepared."""
        return min((place for place in self._reading.places.values() if place), default=0)

    async def pictures(self, alive: AbstractContextManager) -> AsyncGenerator[None, None]:
        """Comes back whenever it is time to look, at once when the first token is there, and for
        the last time after the end; `alive` is held meanwhile. Raises what the model raised.
        Leaving it before the end cancels the requests."""
        try:
            with alive, PACE.stream() as pause:
                over = False
                while not over:
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self._news.wait(), pause())
                    self._news.clear()
                    over = self._over  # what ends while somebody looks is looked at again
                    if over and self._reading.error is not None:
                        raise self._reading.error
                    yield
        finally:
            self._reading.cancelled.set()
