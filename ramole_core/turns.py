"""Turns and shares of sources: none delays or keeps out another.

A source is an address, or for want of one a session: many sessions of one address are one source.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from ramole_core.errors import Busy, Cancelled

SHARE = 4
"""A source may hold a fourth of the places, or as many as there are rows if that is more."""
POLL_SECONDS = 0.1
"""Interval at which a caller's cancellation is polled."""
MAX_SOURCES = 1024
"""Sources whose last turn is stored."""
Source = tuple[str, str]
"""An address, or for want of one a session; both empty: a script's."""


def never() -> bool:
    """False: the caller cannot cancel."""
    return False


def source_of(session: str, address: str) -> Source:
    """The source of a request."""
    return (address, "") if address else ("", session)


@dataclass(eq=False)
class _Waiting:
    source: Source
    since: float = 0.0
    """Used as its source's last turn, where that is not known."""
    called: threading.Event = field(default_factory=threading.Event)


class TurnLock:
    """A fair lock: next is the source with the oldest last turn, and of one source the first come.
    Without sources it is first come, first served."""

    def __init__(self):
        self._lock = threading.Lock()
        self._held = False
        self._waiting: list[_Waiting] = []
        self._count = 0
        self._turns: OrderedDict[Source, int] = OrderedDict()
        """The number of each source's last turn, the latest last."""

    @contextmanager
    def turn(
        self, source: Source = ("", ""), cancelled: Callable[[], bool] = never
    ) -> Iterator[None]:
        """Hold the lock inside; raises Cancelled where `cancelled` is true before that."""
        self._take(_Waiting(source), cancelled)
        try:
            yield
        finally:
            with self._lock:
                self._pass_on()

    def _take(self, one: _Waiting, cancelled: Callable[[], bool]) -> None:
        with self._lock:
            one.since = self._count - 0.5  # before the turn that runs, behind all others
            if not self._held:
                self._call(one)
            else:
                self._waiting.append(one)
        try:
            while not one.called.wait(None if cancelled is never else POLL_SECONDS):
                still(cancelled)
            still(cancelled)
        except BaseException:
            with self._lock:
                if one.called.is_set():
                    self._pass_on()
                else:
                    self._waiting.remove(one)
            raise

    def _pass_on(self) -> None:
        """Give the lock to the next one; called with the inner lock."""
        self._held = False
        if self._waiting:
            last = self._turns
            following = min(self._waiting, key=lambda one: last.get(one.source, one.since))
            self._waiting.remove(following)
            self._call(following)

    def _call(self, one: _Waiting) -> None:
        self._held = True
        self._count += 1
        self._turns[one.source] = self._count
        self._turns.move_to_end(one.source)
        while len(self._turns) > MAX_SOURCES:
            self._turns.popitem(last=False)
        one.called.set()


class Places:
    """The places of requests that are prepared; thread-safe."""

    def __init__(self, *, most: int, rows: int):
        """`most` may be prepared at once; `rows` run at once."""
        self._most, self._rows = most, rows
        self._lock = threading.Lock()
        self._held: list[Source] = []

    @contextmanager
    def held(self, source: Source) -> Iterator[None]:
        """Hold a place inside; raises Busy where there is none, as `check_place` does."""
        with self._lock:
            check_place(self._held, source, max_queue=self._most, max_batch=self._rows)
            self._held.append(source)
        try:
            yield
        finally:
            with self._lock:
                self._held.remove(source)


def check_place(
    waiting: Collection[Source], source: Source, *, max_queue: int, max_batch: int
) -> None:
    """Raise Busy where no more request may wait.

    Raises Busy where `max_queue` wait, or where its source has as many of them as one may. A script
    has no share to keep to.
    """
    if len(waiting) >= max_queue:
        raise Busy(
            f"The server is busy: {len(waiting)} requests are waiting; try again in a moment."
        )
    held, most = sum(one == source for one in waiting), max(max_queue // SHARE, max_batch)
    if any(source) and held >= most:
        whose = "your address" if source[0] else "your session"
        raise Busy(
            f"The server is busy: {held} requests of {whose} are waiting, as many as may; "
            "try again in a moment."
        )


def still(cancelled: Callable[[], bool]) -> None:
    if cancelled():
        raise Cancelled("Nobody waits for the answer any more; its prompt is not read.")
