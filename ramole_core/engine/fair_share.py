"""Shares of the model's time: a source that has had more than others waits while they ask.

As the virtual token counter of Sheng et al. (arXiv 2401.00588), with seconds in place of tokens,
which are forgotten by and by, and a burst that is always allowed: a long document or a full batch
is answered at once, and the next one behind those who asked for little.
"""

import math
import threading
import time
from collections.abc import Callable, Iterable, Sequence

from ramole_core.turns import Source

BURST_SECONDS = 4.0
"""What a source may have beyond the mean of all that ask."""
FORGOTTEN_SECONDS = 30.0
"""After so long, e times less counts of what a source had."""
KNOWN_SECONDS = 0.05
"""A source that has had so much counts as one that asks."""
LATELY_SECONDS = 2.0
"""Who asks again and again asks between two requests too."""
SMALLEST = 1e-6
"""Seconds that are dropped: less than a row has of any step, which are added up."""
ROW_TOKENS = 1024
"""A row that attends to so many tokens counts twice as much as one that attends to none; an
estimate."""


class FairShare:
    """What each source has had of the model's time; thread-safe."""

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
        """Those of the sources that ask which have had a burst more than the mean of all of them:
        never all, so one that asks alone is none, nor is a script."""
        with self._lock:
            self._forget()
            had = {source: self._had.get(source, 0.0) for source in asking}
        most = BURST_SECONDS + sum(had.values()) / max(1, len(had))
        return {source for source, seconds in had.items() if any(source) and seconds > most}

    def lately(self) -> list[Source]:
        """Sources that had something in the last LATELY_SECONDS."""
        with self._lock:
            self._forget()
            return [one for one, at in self._last.items() if self._since - at < LATELY_SECONDS]

    def known(self) -> int:
        """The number of sources that had something of late."""
        with self._lock:
            self._forget()
            return sum(had > KNOWN_SECONDS for had in self._had.values())

    def _forget(self) -> None:
        now = self._clock()
        factor = math.exp((self._since - now) / FORGOTTEN_SECONDS)
        self._since = now
        kept = ((source, had * factor) for source, had in self._had.items())
        self._had = {source: had for source, had in kept if had > SMALLEST}
        self._last = {source: self._last[source] for source in self._had}
