"""One caller's requests: fed in as far as they fit, what comes of them collected as it comes.

Without an `EngineThread` the callers step the engine themselves, in turn (scripts, ZeroGPU).
"""

import queue
from collections.abc import Callable, Iterator, Sequence

from ramole_core.engine.engine import Engine
from ramole_core.engine.engine_thread import EngineThread
from ramole_core.engine.prompt import Prepared
from ramole_core.engine.request_state import RequestState
from ramole_core.errors import Busy
from ramole_core.request import Generation, Step

LOOK = 0.05
"""Seconds between two looks at whether a caller has gone, while nothing comes."""


class RequestStream:
    """One caller's requests: feeds them in as far as they fit, and collects what comes."""

    def __init__(
        self,
        engine: Engine,
        thread: Callable[[], EngineThread | None],
        asked: Sequence[Prepared],
        *,
        session: str,
        address: str = "",
        cancelled: Callable[[], bool],
        waiting: Callable[[int, int], None],
    ):
        """`thread` gives the thread that steps the engine now, None where callers do."""
        self._engine, self._thread = engine, thread
        self._asked = list(asked)
        self._session, self._cancelled, self._waiting = session, cancelled, waiting
        self._address = address
        self._news: queue.SimpleQueue[tuple[RequestState, Step | Generation | Exception]] = (
            queue.SimpleQueue()
        )
        self._open: dict[RequestState, int] = {}
        self._places: dict[int, int] = {}
        self._next = 0
        self._stopped = False

    def __iter__(self) -> Iterator[tuple[int, Step | Generation]]:
        """Every token and answer, with the index of its request; raises what its request met."""
        try:
            while self._open or self._next < len(self._asked):
                if not self._stopped and self._cancelled():
                    self._stop()
                self._feed()
                self._tell_places()
                yield from self._take()
        finally:
            self._stop()
            if self._open:
                self._drain()

    def _stop(self) -> None:
        self._stopped = True
        for state in self._open:
            state.cancel()
        if (thread := self._thread()) is not None:
            thread.wake()

    def _feed(self) -> None:
        """Submit what fits: as many as run at once, so that a long list is no crowd in the queue.

        What is stopped before it was fed goes in as well, to come out as cancelled.
        """
        most = self._engine.sizes.max_batch
        while self._next < len(self._asked) and len(self._open) < most:
            prepared = self._asked[self._next]
            try:
                state = self._engine.submit(
                    prepared,
                    session=self._session or prepared.request.owner or "",
                    address=self._address,
                    stopped=self._stopped,
                    deliver=lambda state, item: self._news.put((state, item)),
                )
            except Busy:
                if not self._next and not self._open:
                    raise
                break
            self._open[state] = self._next
            if self._stopped:
                state.cancel()
            self._next += 1
            if (thread := self._thread()) is not None:
                thread.wake()

    def _tell_places(self) -> None:
        unsure = [(t, i) for t, i in self._open.items() if self._places.get(i) != 0]
        places = self._engine.scheduler.places() if unsure else {}
        for state, index in unsure:
            known, place = self._places.get(index), places.get(state, 0)
            if place != known:
                self._places[index] = place
                if known is not None or place:
                    self._waiting(index, place)

    def _take(self) -> Iterator[tuple[int, Step | Generation]]:
        if self._thread() is None and self._news.empty():
            self._engine.step()
        try:
            state, item = self._news.get(timeout=LOOK)
        except queue.Empty:
            return
        while True:
            index = self._open[state]
            if not isinstance(item, Step):
                del self._open[state]
            if isinstance(item, Exception):
                raise item
            yield index, item
            try:
                state, item = self._news.get_nowait()
            except queue.Empty:
                return

    def _drain(self) -> None:
        """The caller has gone: let the rows go now where no thread does it."""
        if self._thread() is None:
            self._engine.step()
