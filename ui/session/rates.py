"""Bounded rates by address: so many events a second, and so many at once before that."""

import threading
import time
from collections.abc import Callable

from .counts import Taken, shares

REMEMBERED = 4096
"""Addresses and prefixes that are remembered before those that asked for nothing lately go."""


class AddressRates:
    """The events of each address, less those of the time that has passed; thread-safe."""

    def __init__(self, *, rate: float, burst: int, clock: Callable[[], float] = time.monotonic):
        """`rate` events a second from one address, where it is known, and `burst` more at once.
        Wider prefixes of IPv6 have more shares (`counts.py`)."""
        self._rate, self._burst, self._clock = rate, burst, clock
        self._lock = threading.Lock()
        self._levels: dict[str, tuple[float, float]] = {}
        """Events that count still, and when that was."""

    def take(self, address: str) -> None:
        """Count one event; raises Taken where it comes too soon."""
        with self._lock:
            now = self._clock()
            levels = {key: (self._level(key, n, now), n) for key, n in shares(address)}
            if any(level + 1 > n * self._burst for level, n in levels.values()):
                raise Taken(near=True)
            self._levels |= {key: (level + 1, now) for key, (level, _) in levels.items()}
            if len(self._levels) > REMEMBERED:
                kept = self._levels.items()
                self._levels = {k: one for k, one in kept if one[0] > self._rate * (now - one[1])}

    def _level(self, key: str, many: int, now: float) -> float:
        level, at = self._levels.get(key, (0.0, now))
        return max(0.0, level - self._rate * many * (now - at))
