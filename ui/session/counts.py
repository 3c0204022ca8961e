"""Bounded counts by address and in all.

An address is an IPv4 address or a /64 of IPv6. Whoever has one /64 often has many, so the wider
prefixes have bounds too, which grow: a /56 has two shares, a /48 four. An unknown address ('') is
bounded with all others only.
"""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from ipaddress import ip_network

WIDER = ((56, 2), (48, 4))
"""Prefixes of IPv6, and how many shares each has."""


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
        """Return so much."""
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


@lru_cache(4096)
def shares(address: str) -> tuple[tuple[str, int], ...]:
    """The prefixes of an address, the narrowest first, each with its shares."""
    if ":" not in address:
        return ((address, 1),) if address else ()
    network = ip_network(address)
    return ((address, 1), *((str(network.supernet(new_prefix=n)), many) for n, many in WIDER))
