"""Keep the index in step with the pool.

New cards are embedded, removed ones deleted, and a self-check before the first use repairs entries
that are missing, stale or broken.
"""

import hashlib
import json
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Float32

from ramole_core.errors import RamoleError
from ramole_core.retrieval.card_vector import (
    WORDS,
    Card,
    adapter_vectors,
    card_texts,
    card_words,
)
from ramole_core.retrieval.collection import IndexBroken
from ramole_core.retrieval.index import AdapterIndex, IndexEntry

T = TypeVar("T")

_CHUNK = 500  # adapters embedded before they are written; a killed rebuild keeps what it wrote
_AT_ONCE = 2  # adapters embedded in one go where prompts wait for the same encoder
_PAUSE = 0.001  # seconds in which a prompt that waits gets the encoder: its lock is not a fair one


@runtime_checkable
class Cards(Protocol):
    """A pool, as retrieval needs it."""

    def cards(self, owner: str | None = None) -> Sequence[Card]: ...
    def all_cards(self) -> Sequence[Card]: ...


@runtime_checkable
class Embedder(Protocol):
    """An encoder, as retrieval needs it."""

    @property
    def checksum(self) -> str: ...
    def embed(self, texts: Sequence[str]) -> Float32[np.ndarray, "n d"]: ...
    def count_tokens(self, texts: Sequence[str]) -> int: ...


@dataclass(frozen=True)
class Report:
    """The result of a self-check."""

    added: tuple[str, ...]
    """Keys whose vector was missing or stale."""
    removed: tuple[str, ...]
    """Keys that the pool does not have."""
    kept: int
    rebuilt: str | None
    """Why the whole index was rebuilt; None: it was not."""
    seconds: float

    def __str__(self) -> str:
        why = f"The index was rebuilt: {self.rebuilt} " if self.rebuilt else ""
        return (
            f"{why}{self.kept} vectors kept, {len(self.added)} added, "
            f"{len(self.removed)} removed in {self.seconds:.1f} s."
        )


class KeptIndex:
    """An index that follows a pool. Thread-safe."""

    def __init__(self, index: AdapterIndex, *, pool: Cards, encoder: Embedder):
        """Nothing is opened yet; the first use, or `check()`, does that."""
        self._index = index
        self._pool = pool
        self._encoder = encoder
        self._lock = threading.RLock()
        self._checked = False

    def added(self, card: Card) -> None:
        """Embed a new card, or one whose examples changed.

        Raises RamoleError when it cannot be embedded or written.
        """
        with self._lock:
            if self._checked:  # else the self-check before the first use embeds it
                entries = self._entries([card])
                self.use(lambda index: index.upsert(entries))

    def take_in(self, cards: Sequence[Card]) -> None:
        """Embed these before the pool shows them, a few at a time, so that prompts are not delayed.

        Raises RamoleError as `check` does.
        """
        self.use(lambda index: None)
        entries: dict[str, IndexEntry] = {}
        for first in range(0, len(cards), _AT_ONCE):
            entries |= self._entries(cards[first : first + _AT_ONCE])
            time.sleep(_PAUSE)
        self.use(lambda index: index.upsert(entries))

    def removed(self, card: Card) -> None:
        """Remove a card; it is no longer found, even if the index cannot be written."""
        with self._lock:
            if self._checked:
                try:
                    self._index.delete([card.key])
                except RamoleError:
                    self._checked = False  # the self-check before the next use takes it out

    def check(self) -> Report:
        """Compare the index with the pool: embed what is missing or stale, take out orphans.

        An index that cannot be read, or that another encoder made, is made anew. Raises
        RamoleError when encoder or Chroma server cannot be reached.
        """
        with self._lock:
            start = time.monotonic()
            try:
                report = self._repair(None, start)
            except IndexBroken as error:
                self._checked = False  # whoever comes waits for it, or repairs it
                self._index.wipe()
                report = self._repair(str(error), start)
            self._checked = True
            return report

    def use(
        self, ask: Callable[[AdapterIndex], T], *, until: Callable[[T], bool] = lambda found: True
    ) -> T:
        """Use the index; one that broke, or was emptied by another so that `until` does not hold,
        is repaired and used again."""
        if not self._checked:  # without the lock: a check that runs now is not waited for
            with self._lock:
                if not self._checked:
                    self.check()
        with suppress(IndexBroken):
            if until(found := ask(self._index)):
                return found
        self.check()
        return ask(self._index)

    def close(self) -> None:
        """Close the index's files or sockets."""
        self._index.close()

    def _repair(self, rebuilt: str | None, start: float) -> Report:
        cards = {card.key: card for card in self._pool.all_cards()}
        stored = self._index.read()
        encoder = self._encoder.checksum
        if any(entry.encoder != encoder for entry in stored.values()):
            self._index.wipe()
            stored, rebuilt = {}, "it was made by another encoder."
        orphans = [key for key in stored if key not in cards]
        self._index.delete(orphans)
        stale = [
            card
            for key, card in cards.items()
            if key not in stored or stored[key].texts != _checksum(card) or _bad(stored[key])
        ]
        for first in range(0, len(stale), _CHUNK):
            self._index.upsert(self._entries(stale[first : first + _CHUNK]))
        return Report(
            added=tuple(card.key for card in stale),
            removed=tuple(orphans),
            kept=len(cards) - len(stale),
            rebuilt=rebuilt,
            seconds=time.monotonic() - start,
        )

    def _entries(self, cards: Sequence[Card]) -> dict[str, IndexEntry]:
        vectors = adapter_vectors(self._encoder.embed, cards)
        return {
            card.key: IndexEntry(_checksum(card), self._encoder.checksum, vector)
            for card, vector in zip(cards, vectors, strict=True)
        }


def _checksum(card: Card) -> str:
    texts = card_texts(card)
    said = [WORDS, texts] if card_words(card) else texts  # without words as it always was
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()


def _bad(entry: IndexEntry) -> bool:
    return not (np.isfinite(entry.vector).all() and entry.vector.any())
