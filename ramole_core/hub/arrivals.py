"""Fetch weights on first use, checked as uploads are, within a number of bytes.

No request waits long: after a deadline the next best adapter answers while the fetch goes on. The
least recently used one is evicted, unless it was used a moment ago.
"""

import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass

from ramole_core.errors import AdapterRefused, RamoleError
from ramole_core.hub.register import Fetched, Listed, Register, mark_of
from ramole_core.pool.card import AdapterCard
from ramole_core.pool.disk import refused_by_disk
from ramole_core.pool.hub import HubUnreachable
from ramole_core.pool.names import free_name
from ramole_core.pool.pool import NameTaken, Pool

THREADS = 2
MAX_WAIT_SECONDS = 20.0
"""Seconds that one request, or list of requests, waits for weights, all of them together."""
POLL_SECONDS = 0.05
"""Interval at which the caller's cancellation is polled."""
HELD_SECONDS = 60.0
"""Seconds after its last use in which an adapter is not evicted: a request may be reading it."""
MAX_FETCHES = 12
"""Most fetches that run or wait."""
RETRY_SECONDS = 600.0
"""Seconds until a failed fetch is tried again."""
UNREACHABLE_SECONDS = 60.0
"""Seconds without requests after the Hub did not answer."""


class NotHere(RamoleError):
    """The adapter is not available now; the message has the reason."""


@dataclass(frozen=True)
class Wait:
    """A deadline for weights, shared by all that is requested together."""

    until: float
    """Of `time.monotonic`."""
    ended: Callable[[], bool] = lambda: False
    """Whether the caller no longer waits."""


class Arrivals:
    """Bring listed adapters into the pool, and evict them; thread-safe."""

    def __init__(
        self, pool: Pool, register: Register, *, mb: int, clock: Callable[[], float] = time.time
    ):
        """`mb`: most MiB of weights that are kept. `clock` dates what outlives the process."""
        self._steady = time.monotonic
        """A monotonic clock for pauses."""
        self._pool, self._register, self._limit, self._clock = pool, register, mb * 2**20, clock
        self._lock = threading.RLock()
        self._coming: dict[str, tuple[int, Future[AdapterCard]]] = {}
        """By repository: the bytes of its weights, and its future card."""
        self._later: dict[str, tuple[float, str]] = {}
        self._silent_until = -math.inf
        self._workers: ThreadPoolExecutor | None = None
        self._closed = False

    def here(self, one: Listed) -> AdapterCard | None:
        """Return its card, if it is in the pool."""
        for came, card in self._fetched():
            if came.repo == one.repo and came.sha == one.sha:
                if card is None:
                    self._register.forget(came.name)
                return card
        return None

    def there(self) -> set[str]:
        """The repositories that are in the pool now."""
        return {came.repo for came, card in self._fetched() if card is not None}

    def _fetched(self) -> list[tuple[Fetched, AdapterCard | None]]:
        """What was fetched, and its card where that is in the pool still."""
        cards = {card.name: card for card in self._pool.cards()}
        return [
            (came, card if (card := cards.get(came.name)) and came.made(card) else None)
            for came in self._register.fetched()
        ]

    def bring(self, one: Listed, wait: Wait) -> AdapterCard:
        """Its card, fetched if needed. Raises NotHere with the reason."""
        with self._lock:
            if (card := self.here(one)) is not None:
                return card
            if self._closed or wait.ended():
                raise NotHere("Nobody waits for it any more.")
            now = self._steady()
            when, why = self._later.get(one.repo, (-math.inf, ""))
            if one.verdict == "refused" or now < when:
                raise NotHere(one.reason or why)
            if now < self._silent_until:
                raise NotHere("The Hub did not answer a moment ago.")
            if one.repo not in self._coming:
                if len(self._coming) >= MAX_FETCHES:
                    raise NotHere("Many others are on their way already.")
                self._make_room(one)
                self._workers = self._workers or ThreadPoolExecutor(THREADS, "hub-weights")
                self._coming[one.repo] = one.bytes, self._workers.submit(self._fetch, one)
            _, coming = self._coming[one.repo]
        return self._result(coming, wait)

    def _result(self, coming: Future[AdapterCard], wait: Wait) -> AdapterCard:
        while True:
            left = wait.until - time.monotonic()
            try:
                return coming.result(timeout=max(0.0, min(left, POLL_SECONDS)))
            except TimeoutError:
                if left <= 0 or self._closed or wait.ended():
                    why = "It is still on its way, and can answer once it is here."
                    raise NotHere(why) from None
            except CancelledError:
                raise NotHere("Nobody waits for it any more.") from None
            except RamoleError as refusal:
                raise NotHere(str(refusal)) from None

    def touch(self, names: list[str]) -> None:
        """Mark these as used now."""
        self._register.touch(names, now=self._clock())

    def close(self) -> None:
        """Close without waiting: fetches on their way find the pool closed, and their files are
        deleted when it opens again."""
        with self._lock:
            self._closed = True
            if self._workers is not None:
                self._workers.shutdown(wait=False, cancel_futures=True)
                self._workers = None

    def _fetch(self, one: Listed) -> AdapterCard:
        try:
            taken = {card.name for card in self._pool.cards()}
            name = free_name(one.name, taken) if one.name in taken else one.name
            given = list(one.examples) or None
            card = self._pool.add(
                one.source, name, given, login=False, may_replace=lambda there: False
            )
            self._note(one, card, ours=card.name == name)
            return card
        except RamoleError as refusal:
            with self._lock:
                self._refuse(one, refusal)
            raise
        finally:
            with self._lock:
                self._coming.pop(one.repo, None)

    def _note(self, one: Listed, card: AdapterCard, *, ours: bool) -> None:
        """Register what came; where the disk does not take that, it goes again."""
        now, mark = self._clock(), mark_of(card)
        came = Fetched(one.repo, one.sha, card.name, card.bytes, now, ours, mark)
        try:
            with refused_by_disk("added"):
                self._register.note(came)
        except AdapterRefused:
            if ours:
                self._pool.remove(card.name)
            self._register.forget(card.name)
            raise
        self._register.judge(one)

    def _refuse(self, one: Listed, refusal: RamoleError) -> None:
        """Refuse an invalid adapter for good, others for a while (Hub, disk or room), and one
        whose name was taken meanwhile not at all: the next time it gets another."""
        full = len(self._pool.all_cards()) >= self._pool.limits.max_adapters
        disk = isinstance(refusal.__cause__, OSError)
        if isinstance(refusal, HubUnreachable):
            self._silent_until = self._steady() + UNREACHABLE_SECONDS
        elif disk or full or not isinstance(refusal, AdapterRefused):
            self._later[one.repo] = (self._steady() + RETRY_SECONDS, str(refusal))
        elif not isinstance(refusal, NameTaken):
            self._register.judge(one, reason=str(refusal))

    def _make_room(self, one: Listed) -> None:
        """Evict the least recently used until its bytes fit; raises NotHere if they cannot."""
        held = [came for came, card in self._fetched() if came.ours and card is not None]
        coming = sum(size for size, _ in self._coming.values())
        free = self._limit - coming - sum(came.bytes for came in held)
        if one.bytes > self._limit:
            raise NotHere(
                f"Its weights have {one.bytes / 2**20:.1f} MiB, and {self._limit >> 20} are kept "
                "in all; raise RAMOLE_HUB_MB."
            )
        now = self._clock()
        idle = [came for came in held if abs(now - came.used) >= HELD_SECONDS]
        enough = free + sum(came.bytes for came in idle) >= one.bytes
        for came in sorted(idle, key=lambda came: came.used):
            if free >= one.bytes or not enough:
                break
            try:
                self._pool.remove(came.name)
            except RamoleError:  # the disk does not let it go; another may
                continue
            self._register.forget(came.name)
            free += came.bytes
        if free < one.bytes:
            raise NotHere(
                "All adapters of the Hub that are here were used a moment ago, and there is no "
                "room for one more; raise RAMOLE_HUB_MB."
            )
