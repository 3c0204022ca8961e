"""A request on its way, as an event loop sees it: it waits for nothing that another could use."""

import asyncio
import threading
from collections.abc import AsyncGenerator
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

    def take(self) -> None:
        """Raises Busy where there is none."""
        with self._lock:
            if not self._left:
                raise Busy(
                    f"The server is busy: {self._most} requests are on their way; try again in a "
                    "moment."
                )
            self._left -= 1

    def give_back(self) -> None:
        """It has ended."""
        with self._lock:
            self._left += 1


class Running:
    """Begins at once; made inside an event loop."""

    def __init__(self, ramole: "Ramole", request: Request, *, address: str, places: Places):
        """Raises Busy where `places` has none."""
        places.take()
        self.request = request
        self._news, loop = asyncio.Event(), asyncio.get_running_loop()
        self._over = False

        def tell() -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody waits
                loop.call_soon_threadsafe(self._news.set)

        def after(reading: Reading) -> None:
            places.give_back()
            self._over = True
            tell()

        self._reading = Reading(
            ramole, [request], session=request.owner, address=address, begun=tell, after=after
        )

    @property
    def steps(self) -> list[Step]:
        """Those that came."""
        return self._reading.steps[0]

    @property
    def answer(self) -> Generation:
        """Once it is over."""
        return self._reading.answers[0]

    @property
    def place(self) -> int:
        """In the queue; 0: it runs, or is only being prepared."""
        return self._reading.places.get(0, 0)

    async def pictures(self, alive: AbstractContextManager) -> AsyncGenerator[None, None]:
        """Comes back whenever it is time to look, at once when the first token is there, and for
        the last time after the end; `alive` is held meanwhile. Raises what the model raised.
        Leaving it before the end cancels the request."""
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
