"""Publish the pool's adapters to the store, and sweep removed ones.

An adapter is in the store before an engine needs it. The files of one that was removed go when no
request that runs names them; those that a page that died left there go at the next start.
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
        self._removed: set[str] = set()
        self._asked: Counter[str] = Counter()

    def begin(self) -> None:
        """Publish missing adapters, and finish what an earlier page left; raises OSError."""
        there, cards = self._store.contents(), self._pool.all_cards()
        kept = {card.content for card in cards}
        self._there, self._removed = there & kept, there - kept
        for card in cards:
            self._publish(card.content, card.folder)
        self.sweep()

    def added(self, card: AdapterCard) -> None:
        self._publish(card.content, card.folder)

    def removed(self, card: AdapterCard) -> None:
        if all(other.content != card.content for other in self._pool.all_cards()):
            with self._writing, self._lock:
                self._there.discard(card.content)
                self._removed.add(card.content)
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
                late = not self._removed.isdisjoint(ended)
            if late:
                self.sweep()

    def sweep(self) -> None:
        """Delete removed adapters that are not held; what cannot be deleted goes with a later
        sweep."""
        gone = []
        with self._writing:
            with self._lock:
                free = sorted(self._removed - self._asked.keys())
            for content in free:
                try:
                    self._store.delete(content)
                except OSError as error:
                    log.warning("A removed adapter stays in the store: %s", type(error).__name__)
                    continue
                self._removed.discard(content)
                gone.append(content)
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
                self._removed.discard(content)
