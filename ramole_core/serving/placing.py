"""Choose an engine: the one of the request's first adapter, or the least loaded.

    adapter: rendezvous hashing (Thaler and Ravishankar 1998) with bounded loads (arXiv 1608.01350):
             engines in the order of hash(engine, adapter); the first whose requests, this one
             included, are at most 1.25 times the mean
    load:    the fewest requests

With `adapter` an adapter is kept in the caches of few engines and a conversation's beginning is
found where it was read; an engine that comes or goes moves its own share of the adapters alone.
"""

import hashlib
import math
import threading
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Literal

MAX_LOAD = 1.25
How = Literal["adapter", "load"]


class Placing:
    """Counts of this page's open requests by engine; thread-safe."""

    def __init__(self, how: How = "adapter"):
        self.how = how
        self._lock = threading.Lock()
        self._load: Counter[str] = Counter()
        self._turn = 0

    def begin(
        self, adapter: str | None, engines: Sequence[str], *, lost: Collection[str] = ()
    ) -> str:
        """Choose one of the live `engines` (at least one) for a request of this adapter (None: it
        has none), and count it. One that is `lost` is chosen where no other is there."""
        engines = [engine for engine in engines if engine not in lost] or engines
        with self._lock:
            self._turn += 1
            load = [self._load[engine] for engine in engines]
            if adapter is None or self.how == "load":
                order = _order(str(self._turn), engines)  # among equals in turn
                place = min(order, key=lambda n: load[n])
            else:
                most = math.ceil(MAX_LOAD * (sum(load) + 1) / len(engines))
                order = _order(adapter, engines)
                place = next(n for n in order if load[n] < most)
            self._load[engines[place]] += 1
            return engines[place]

    def end(self, engine: str) -> None:
        with self._lock:
            self._load[engine] -= 1
            if self._load[engine] <= 0:
                del self._load[engine]


def _order(key: str, engines: Sequence[str]) -> list[int]:
    """The engines' indices in the key's order."""

    def worth(n: int) -> bytes:
        return hashlib.sha256(f"{engines[n]} {key}".encode()).digest()

    return sorted(range(len(engines)), key=worth, reverse=True)
