"""Bounded counts by address and in all, and bounded rates: so many events a second, and so many at
once before that.

An address is an IPv4 address or a /64 of IPv6. Whoever has one /64 often has many, so the wider
prefixes have bounds too, which grow: a /56 has two shares, a /48 four. An unknown address ('') is
bounded with all others only.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from ipaddress import ip_network

WIDER = ((56, 2), (48, 4))
"""Prefixes of IPv6, and how many shares each has."""
MAX_REMEMBERED = 4096
"""Addresses and prefixes whose rates are remembered before idle ones go."""


class Taken(Exception):
    """No room, for the address or in all."""

    def __init__(self, *, near: bool):
        """`near`: the address itself has too much."""
        super().__init__()
        self.near = near


class AddressCounts:
    """The counts; thread-safe."""

    def __init__(self, address: int, all: int):
        """At most `address` from one address, where it is known, and `all` in all."""
        self._address, self._all = address, all
        self._lock = threading.Lock()
        self._by: Counter[str] = Counter()
        self.total = 0

    def take(self, address: str, amount: int = 1) -> None:
        """Take so much more; raises Taken where it does not fit."""
        with self._lock:
            if any(self._by[key] + amount > n * self._address for key, n in shares(address)):
                raise Taken(near=True)
            if self.total + amount > self._all:
                raise Taken(near=False)
            self._add(address, amount)

    def give_back(self, address: str, amount: int = 1) -> None:
        with self._lock:
            self._add(address, -amount)

    @contextmanager
    def held(self, address: str, amount: int = 1) -> Iterator[None]:
        """Take so much more inside the block; raises Taken where it does not fit."""
        self.take(address, amount)
        try:
            yield
        finally:
            self.give_back(address, amount)

    def _add(self, address: str, amount: int) -> None:
        self.total += amount
        for key, _ in shares(address):
            self._by[key] += amount
            if not self._by[key]:
                del self._by[key]


class AddressRates:
    """The events of each address, less those of the time that has passed; thread-safe."""

    def __init__(self, *, rate: float, burst: int, clock: Callable[[], float] = time.monotonic):
        """`rate` events a second from one address, where it is known, and `burst` more at once.
        Wider prefixes of IPv6 have more shares."""
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
            if len(self._levels) > MAX_REMEMBERED:
                kept = self._levels.items()
                self._levels = {k: one for k, one in kept if one[0] > self._rate * (now - one[1])}

    def _level(self, key: str, many: int, now: float) -> float:
        level, at = self._levels.get(key, (0.0, now))
        return max(0.0, level - self._rate * many * (now - at))


@lru_cache(4096)
def shares(address: str) -> tuple[tuple[str, int], ...]:
    """The prefixes of an address, the narrowest first, each with its shares."""
    if ":" not in address:
        return ((address, 1),) if address else ()
    network = ip_network(address)
    return ((address, 1), *((str(network.supernet(new_prefix=n)), many) for n, many in WIDER))
