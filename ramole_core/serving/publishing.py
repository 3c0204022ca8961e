"""Publish the pool's adapters to the store, and sweep removed ones.

An adapter is in the store before an engine is asked for it. One that was removed gets a tombstone
at once, so that a page that dies forgets nothing, and its files go when no request that runs names
them.
"""

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ramole_core.pool import AdapterCard, Pool
from ramole_core.serving.store import AdapterStore

log = logging.getLogger(__name__)


class Publishing:
    """A listener of the pool; thread-safe."""

    def __init__(self, pool: Pool, store: AdapterStore, *, gone: Callable[[Sequence[str]], None]):
        """`gone` is called with the checksums that have left the store."""
        self._pool, self._store, self._gone = pool, store, gone
        self._lock = threading.Lock()
        self._writing = threading.RLock()
        """No adapter is swept while it is published again."""
        self._there: set[str] = set()
        self._asked: Counter[str] = Counter()

    def begin(self) -> None:
        """Publish missing adapters, and finish what an earlier page left; raises OSError."""
        there, cards = self._store.contents(), self._pool.all_cards()
        kept = {card.content for card in cards}
        self._there = (there & kept) - self._store.buried()
        for card in cards:
            self._publish(card.content, card.folder)
        for content in there - kept:
            self._store.bury(content)
        self.sweep()

    def added(self, card: AdapterCard) -> None:
        self._publish(card.content, card.folder)

    def removed(self, card: AdapterCard) -> None:
        if all(other.content != card.content for other in self._pool.all_cards()):
            with self._writing:
                self._store.bury(card.content)
                with self._lock:
                    self._there.discard(card.content)
            self.sweep()

    @contextmanager
    def held(self, contents: Iterable[str]) -> Iterator[None]:
        """Keep these in the store inside the block, as far as the pool has them."""
        names = list(contents)
        with self._lock:
            self._asked.update(names)
        try:
            self._ensure(names)
            yield
        finally:
            with self._lock:
                self._asked.subtract(names)
                ended = [name for name in names if self._asked[name] <= 0]
                for name in ended:
                    del self._asked[name]
                late = any(name not in self._there for name in ended)
            if late:
                self.sweep()

    def sweep(self) -> None:
        """Delete removed adapters that are not held."""

        def needed(content: str) -> bool:
            with self._lock:
                return content in self._asked or content in self._there

        try:
            with self._writing:
                gone = self._store.sweep(needed)
        except OSError as error:
            log.warning("Removed adapters stay in the store: %s", type(error).__name__)
            return
        if gone:
            self._gone(gone)

    def _ensure(self, names: Sequence[str]) -> None:
        with self._lock:
            missing = {name for name in names if name not in self._there}
        for card in self._pool.all_cards() if missing else ():
            if card.content in missing:
                self._publish(card.content, card.folder)

    def _publish(self, content: str, folder: Path) -> None:
        with self._writing:
            with self._lock:
                known = content in self._there
            if not known:
                self._store.put(content, folder)
                with self._lock:
                    self._there.add(content)
