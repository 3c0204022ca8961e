"""Who calls `Engine.step`: a thread of its own on a server, or the waiting callers in turn."""

import queue
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence

from ramole_core.engine.engine import Engine
from ramole_core.engine.request import Generation, Request, Step
from ramole_core.engine.ticket import Chosen, Ticket
from ramole_core.errors import Busy

LOOK = 0.05
"""Seconds between two looks at whether a caller has gone, while nothing comes."""


class EngineThread:
    """Steps an engine while there is anything to do; `close()` ends it after the running step."""

    def __init__(self, engine: Engine):
        self._engine = engine
        self._wake = threading.Condition()
        self._ending = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def wake(self) -> None:
        """There is something to do."""
        with self._wake:
            self._wake.notify()

    def close(self) -> None:
        with self._wake:
            self._ending = True
            self._wake.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._wake:
                while self._engine.scheduler.idle and not self._ending:
                    self._wake.wait()
            if self._ending:
                return
            try:
                self._engine.step()
            except Exception:  # whoever waited has been told; the server goes on
                traceback.print_exc()


class Follower:
    """One caller's requests: feeds them in as far as they fit, and collects what comes."""

    def __init__(
        self,
        engine: Engine,
        thread: Callable[[], EngineThread | None],
        asked: Sequence[tuple[Request, Sequence[Chosen]]],
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
        self._news: queue.SimpleQueue[tuple[Ticket, Step | Generation | Exception]] = (
            queue.SimpleQueue()
        )
        self._open: dict[Ticket, int] = {}
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
        for ticket in self._open:
            ticket.cancel()
        if (thread := self._thread()) is not None:
            thread.wake()

    def _feed(self) -> None:
        """Submit what fits: as many as run at once, so that a long list is no crowd in the queue.

        What is stopped before it was fed goes in as well, to come out as cancelled.
        """
        most = self._engine.sizes.max_batch
        while self._next < len(self._asked) and len(self._open) < most:
            request, chosen = self._asked[self._next]
            try:
                ticket = self._engine.submit(
                    request,
                    chosen,
                    session=self._session or request.owner or "",
                    address=self._address,
                    deliver=lambda ticket, item: self._news.put((ticket, item)),
                )
            except Busy:
                if not self._next and not self._open:
                    raise
                break
            self._open[ticket] = self._next
            if self._stopped:
                ticket.cancel()
            self._next += 1
            if (thread := self._thread()) is not None:
                thread.wake()

    def _tell_places(self) -> None:
        unsure = [(t, i) for t, i in self._open.items() if self._places.get(i) != 0]
        places = self._engine.scheduler.places() if unsure else {}
        for ticket, index in unsure:
            known, place = self._places.get(index), places.get(ticket, 0)
            if place != known:
                self._places[index] = place
                if known is not None or place:
                    self._waiting(index, place)

    def _take(self) -> Iterator[tuple[int, Step | Generation]]:
        if self._thread() is None and self._news.empty():
            self._engine.step()
        try:
            ticket, item = self._news.get(timeout=LOOK)
        except queue.Empty:
            return
        while True:
            index = self._open[ticket]
            if not isinstance(item, Step):
                del self._open[ticket]
            if isinstance(item, Exception):
                raise item
            yield index, item
            try:
                ticket, item = self._news.get_nowait()
            except queue.Empty:
                return

    def _drain(self) -> None:
        """The caller has gone: let the rows go now where no thread does it."""
        if self._thread() is None:
            self._engine.step()
