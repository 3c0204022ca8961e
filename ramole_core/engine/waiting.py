"""The queue's order: addresses take turns, then their sessions; each has its share of time.

Shares are those of the virtual token counter of Sheng et al. (arXiv 2401.00588), with seconds in
place of tokens, which are forgotten by and by, and a burst that is always allowed: a long document
or a full batch is answered at once, and the next one after sources that used little.
"""

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from ramole_core.engine.request_state import RequestState
from ramole_core.errors import RamoleError
from ramole_core.turns import Source, check_place, source_of

BURST_SECONDS = 4.0
"""Time that a source may use beyond the mean of all active sources."""
DECAY_SECONDS = 30.0
"""Time in which used time decays by a factor of e."""
MIN_USED_SECONDS = 0.05
"""Used time from which a source counts as active."""
ACTIVE_SECONDS = 2.0
"""A source stays active for so long after its last request."""
MIN_SECONDS = 1e-6
"""Seconds that are dropped: less than a row has of any step, which are added up."""
ROW_TOKENS = 1024
"""A row that attends to so many tokens counts twice as much as one that attends to none; an
estimate."""
CLOSED = "The model was closed meanwhile; open it again."


class WaitingQueue:
    """The waiting requests; thread-safe."""

    def __init__(self, *, most: int, rows: int):
        """`most` may wait at once; `rows` run at once."""
        self._most, self._rows = most, rows
        self._lock = threading.Lock()
        self._waiting: list[RequestState] = []
        self._number = 0
        self._closed = False
        self._known: tuple[list[int], dict[RequestState, int]] | None = None
        """Numbers of the running requests, and places of the waiting ones; None: outdated."""

    def close(self) -> None:
        """Refuse all that come from now on."""
        with self._lock:
            self._closed = True

    def __len__(self) -> int:
        return len(self._waiting)

    def check_place(self, *, session: str, address: str) -> None:
        """Raise Busy where one more request of theirs could not wait now, RamoleError where it is
        closed."""
        with self._lock:
            self._check(session, address)

    def add(self, state: RequestState) -> None:
        """Put a request in, with the next number. Raises as `check_place`."""
        with self._lock:
            self._check(state.session, state.address)
            self._number += 1
            state.number = self._number
            self._waiting.append(state)
            self._known = None

    def put_back(self, state: RequestState) -> None:
        """Put in one that ran, with the number that it has; there is always a place for it."""
        with self._lock:
            self._waiting.append(state)
            self._known = None

    def remove(self, state: RequestState) -> None:
        with self._lock:
            self._waiting.remove(state)
            self._known = None

    def take_cancelled(self) -> list[RequestState]:
        with self._lock:
            gone = [state for state in self._waiting if state.cancelled]
            self._waiting = [state for state in self._waiting if not state.cancelled]
            self._known = None if gone else self._known
        return gone

    def take_all(self) -> list[RequestState]:
        with self._lock:
            gone, self._waiting = self._waiting, []
            self._known = None
        return gone

    def states(self) -> list[RequestState]:
        with self._lock:
            return list(self._waiting)

    def places(self, running: Iterable[RequestState]) -> Mapping[RequestState, int]:
        """All waiting requests by place, the next one, 1, first. All waiting streams read them, so
        it is found once for each change."""
        running = list(running)
        with self._lock:
            beside = [state.number for state in running]
            if self._known is None or self._known[0] != beside:
                order = in_turn(self._waiting, running)
                self._known = beside, {state: place for place, state in enumerate(order, 1)}
            return self._known[1]

    def _check(self, session: str, address: str) -> None:
        if self._closed:
            raise RamoleError(CLOSED)
        waiting = [state.source for state in self._waiting]
        source = source_of(session, address)
        check_place(waiting, source, max_queue=self._most, max_batch=self._rows)


def in_turn(waiting: Iterable[RequestState], running: Iterable[RequestState]) -> list[RequestState]:
    """The waiting requests in the order in which they get rows.

    An address's n-th request (those that run counted) comes after every other address's (n-1)-th,
    and of one address, a session's n-th after every other session's (n-1)-th: many
    requests of one delay no other source. First come, first served where that says nothing.
    """
    ordered, running = sorted(waiting, key=lambda state: state.number), list(running)
    for key in (lambda state: (state.source, state.session), lambda state: state.source):
        taken, order = Counter(map(key, running)), []
        for state in ordered:
            order.append((taken[key(state)], state.number, state))
            taken[key(state)] += 1
        ordered = [state for *_, state in sorted(order, key=lambda entry: entry[:2])]
    return ordered


class FairShare:
    """The model's time that each source has used; thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock, self._lock = clock, threading.Lock()
        self._had: dict[Source, float] = {}
        self._last: dict[Source, float] = {}
        self._since = clock()

    def add(self, seconds: float, parts: Sequence[tuple[Source, float]]) -> None:
        """Count a forward's seconds, divided by what each source had of it."""
        whole = sum(part for _, part in parts)
        with self._lock:
            self._forget()
            for source, part in parts:
                self._had[source] = self._had.get(source, 0.0) + seconds * part / whole
                self._last[source] = self._since

    def exceeding(self, asking: Iterable[Source]) -> set[Source]:
        """Active sources that used a burst more than the mean of all active ones: never all, so a
        source alone is none, nor is a script."""
        with self._lock:
            self._forget()
            had = {source: self._had.get(source, 0.0) for source in asking}
        most = BURST_SECONDS + sum(had.values()) / max(1, len(had))
        return {source for source, seconds in had.items() if any(source) and seconds > most}

    def lately(self) -> list[Source]:
        """Sources that had something in the last ACTIVE_SECONDS."""
        with self._lock:
            self._forget()
            return [one for one, at in self._last.items() if self._since - at < ACTIVE_SECONDS]

    def known(self) -> int:
        with self._lock:
            self._forget()
            return sum(had > MIN_USED_SECONDS for had in self._had.values())

    def _forget(self) -> None:
        now = self._clock()
        factor = math.exp((self._since - now) / DECAY_SECONDS)
        self._since = now
        kept = ((source, had * factor) for source, had in self._had.items())
        self._had = {source: had for source, had in kept if had > MIN_SECONDS}
        self._last = {source: self._last[source] for source in self._had}
