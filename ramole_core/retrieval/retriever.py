"""The retriever: keeps the index true to the pool, and finds the nearest adapters for a prompt.

An adapter's vector is that of its examples and its card's words (`card_vector.py`); the score is
the cosine to the prompt's vector.
"""

import difflib
import hashlib
import json
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Float32

from ramole_core.errors import RamoleError
from ramole_core.retrieval.card_vector import (
    WORDS,
    Described,
    adapter_vectors,
    card_texts,
    card_words,
)
from ramole_core.retrieval.encoder import RecentVectors
from ramole_core.retrieval.index import AdapterIndex, Entry
from ramole_core.retrieval.mirror import cosines
from ramole_core.retrieval.store import IndexBroken

BLIND = 8
"""Adapters without examples that are examined at most, beside the nearest of a large pool."""

EMPTY = "The text to find adapters for is empty; type one."

T = TypeVar("T")

_CHUNK = 500  # adapters embedded before they are written; a killed rebuild keeps what it wrote
_FEW = 2  # adapters embedded in one go where prompts wait for the same encoder
_PAUSE = 0.001  # seconds in which a prompt that waits gets the encoder: its lock is not a fair one


@runtime_checkable
class Card(Described, Protocol):
    """What retrieval needs to know of an adapter."""

    @property
    def owner(self) -> str | None: ...
    @property
    def key(self) -> str: ...


@runtime_checkable
class Cards(Protocol):
    """What retrieval needs of a pool."""

    def cards(self, owner: str | None = None) -> Sequence[Card]: ...
    def all_cards(self) -> Sequence[Card]: ...


@runtime_checkable
class Embedder(Protocol):
    """What retrieval needs of an encoder."""

    @property
    def checksum(self) -> str: ...
    def embed(self, texts: Sequence[str]) -> Float32[np.ndarray, "n d"]: ...


@dataclass(frozen=True)
class Hit:
    """An adapter that was found."""

    name: str
    score: float
    """Cosine similarity, -1 to 1."""
    owner: str | None = None
    """None: the sample pool."""


@dataclass(frozen=True)
class Report:
    """What a self-check found and did."""

    added: tuple[str, ...]
    """Keys whose vector was missing or stale."""
    removed: tuple[str, ...]
    """Keys that the pool does not know."""
    kept: int
    rebuilt: str | None
    """Why the whole index was made anew; None when it was not."""
    seconds: float

    def __str__(self) -> str:
        why = f"The index was rebuilt: {self.rebuilt} " if self.rebuilt else ""
        return (
            f"{why}{self.kept} vectors kept, {len(self.added)} added, "
            f"{len(self.removed)} removed in {self.seconds:.1f} s."
        )


class Retriever:
    """Finds adapters; listens to the pool, so that the index follows it. Thread-safe."""

    def __init__(
        self,
        *,
        pool: Cards,
        encoder: Embedder,
        index: AdapterIndex,
        recent: RecentVectors | None = None,
    ):
        """Nothing is opened yet; the first use, or `check()`, does that. `recent`: the prompts'
        vectors that another retriever with this encoder remembers."""
        self._pool = pool
        self._encoder = encoder
        self._index = index
        self.recent = recent or RecentVectors(encoder.embed)
        self._lock = threading.RLock()
        self._checked = False

    @property
    def encoder_checksum(self) -> str:
        """Of the sentence encoder and its tuning."""
        return self._encoder.checksum

    def embed(self, texts: Sequence[str]) -> Float32[np.ndarray, "n d"]:
        """Vectors of unit length, the instruction included."""
        return self._encoder.embed(texts)

    def retrieve(
        self, text: str, k: int = 3, exclude: Collection[str] = (), owner: str | None = None
    ) -> list[Hit]:
        """The k adapters that `owner` may see and that are nearest to `text`, best first.

        Fewer than k when there are fewer. Raises RamoleError for an empty text or pool, k below
        1, an unknown name in `exclude`, or when `exclude` leaves nothing.
        """
        if not text.strip():
            raise RamoleError(EMPTY)
        cards = self.visible(k, exclude, owner)
        return self._nearest(self.recent([text])[0], k, cards)

    def candidates(
        self, text: str, *, count: int, exclude: Collection[str] = (), owner: str | None = None
    ) -> list[Hit]:
        """Up to `count` adapters that should be examined: the nearest, best first, and after them
        those that show no examples, whose score is nan.

        Where not all can be asked, at most BLIND of the latter, and no more than half: those whose
        names or descriptions are nearest. Raises RamoleError as `retrieve` does.
        """
        if not text.strip():
            raise RamoleError(EMPTY)
        cards = self.visible(count, exclude, owner)
        known = {key: card for key, card in cards.items() if not card.blind}
        blind = {key: card for key, card in cards.items() if card.blind}
        room = len(blind) if len(cards) <= count else min(BLIND, count // 2)
        vector = self.recent([text])[0]
        unknown = self._nearest(vector, min(room, count), blind) if blind and room else []
        found = self._nearest(vector, count - len(unknown), known) if known else []
        return found + [replace(hit, score=float("nan")) for hit in unknown]

    def remember(self, texts: Sequence[str]) -> None:
        """Embed these prompts now; what asks for them next finds their vectors."""
        self.recent(texts)

    def vectors(self, texts: Sequence[str]) -> list[Float32[np.ndarray, "d"]]:
        """What `embed` gives, remembered for the prompts that were asked last."""
        return self.recent(texts)

    def neighbours(self, card: Card, k: int = 3, owner: str | None = None) -> list[Hit]:
        """The k adapters that `owner` may see and that are nearest to `card`, itself left out."""
        vector = self._vectors([card])[0]
        cards = {c.key: c for c in self._pool.cards(owner) if c.key != card.key}
        return self._nearest(vector, k, cards)

    def similarities(self, text: str, cards: Sequence[Card]) -> list[float]:
        """The cosine of `text` to each of `cards`, in their order."""
        if not cards:
            return []
        return cosines(self.recent([text])[0], self._vectors(cards)).tolist()

    def card_vectors(self, cards: Sequence[Card]) -> list[Float32[np.ndarray, "d"]]:
        """The vector by which each of `cards` is found, in their order."""
        return list(self._vectors(cards)) if cards else []

    def added(self, card: Card) -> None:
        """The pool took `card` in, or its examples changed: embed it.

        Raises RamoleError when it cannot be embedded or written.
        """
        with self._lock:
            if self._checked:  # else the self-check before the first use embeds it
                try:
                    self._write([card])
                except IndexBroken:
                    self.check()

    def take_in(self, cards: Sequence[Card]) -> None:
        """Embed these before the pool shows them, a few at a time: prompts come in between.

        Raises RamoleError as `check` does.
        """
        with self._lock:
            if not self._checked:
                self.check()
        entries: dict[str, Entry] = {}
        for first in range(0, len(cards), _FEW):
            entries |= self._entries(cards[first : first + _FEW])
            time.sleep(_PAUSE)
        with self._lock:
            try:
                self._index.upsert(entries)
            except IndexBroken:
                self.check()
                self._index.upsert(entries)

    def removed(self, card: Card) -> None:
        """The pool let `card` go; it is not found any more, even if the index cannot be written."""
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
                self._index.wipe()
                report = self._repair(str(error), start)
            self._checked = True
            return report

    def close(self) -> None:
        """Give the index's files or sockets back."""
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
            self._write(stale[first : first + _CHUNK])
        return Report(
            added=tuple(card.key for card in stale),
            removed=tuple(orphans),
            kept=len(cards) - len(stale),
            rebuilt=rebuilt,
            seconds=time.monotonic() - start,
        )

    def _write(self, cards: Sequence[Card]) -> None:
        self._index.upsert(self._entries(cards))

    def _entries(self, cards: Sequence[Card]) -> dict[str, Entry]:
        vectors = adapter_vectors(self.embed, cards)
        return {
            card.key: Entry(card.owner, _checksum(card), self._encoder.checksum, vector)
            for card, vector in zip(cards, vectors, strict=True)
        }

    def visible(self, k: int, exclude: Collection[str], owner: str | None) -> dict[str, Card]:
        """What `owner` may see and `exclude` leaves, by key; raises as `retrieve` does."""
        if k < 1:
            raise RamoleError(f"k={k}; it is the number of adapters to retrieve, at least 1.")
        if isinstance(exclude, str):
            raise RamoleError(f"exclude={exclude!r} is a string; pass a list: [{exclude!r}].")
        cards = self._pool.cards(owner)
        if not cards:
            raise RamoleError("The pool is empty; add an adapter, or use the method base.")
        names = {card.name for card in cards}
        for name in exclude:
            if name not in names:
                raise RamoleError(_unknown(name, sorted(names)))
        left = {card.key: card for card in cards if card.name not in exclude}
        if not left:
            raise RamoleError(
                f"exclude names all {len(cards)} adapters of the pool; leave at least one in."
            )
        return left

    def _nearest(
        self, vector: Float32[np.ndarray, "d"], k: int, cards: dict[str, Card]
    ) -> list[Hit]:
        found = self._asking(lambda: self._index.query(vector, k=k, among=cards))
        if cards and not found:  # an index that was emptied under us
            self.check()
            found = self._asking(lambda: self._index.query(vector, k=k, among=cards))
        return [Hit(cards[key].name, score, cards[key].owner) for key, score in found]

    def _vectors(self, cards: Sequence[Card]) -> Float32[np.ndarray, "n d"]:
        keys = [card.key for card in cards]
        entries = self._asking(lambda: self._index.read(keys))
        if any(key not in entries for key in keys):
            self.check()
            entries = self._index.read(keys)
        lost = [card.name for card in cards if card.key not in entries]
        if lost:
            raise RamoleError(f"The pool holds no adapter {', '.join(lost)}; it was removed.")
        return np.stack([entries[key].vector for key in keys])

    def _asking(self, ask: Callable[[], T]) -> T:
        """Ask the index; when it broke meanwhile, rebuild it and ask again."""
        if not self._checked:  # without the lock: a check that runs now is not waited for
            with self._lock:
                if not self._checked:
                    self.check()
        try:
            return ask()
        except IndexBroken:
            self.check()
            return ask()


def _checksum(card: Card) -> str:
    texts = card_texts(card)
    said = [WORDS, texts] if card_words(card) else texts  # without words as it always was
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()


def _bad(entry: Entry) -> bool:
    return not (np.isfinite(entry.vector).all() and entry.vector.any())


def _unknown(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=5, cutoff=0.5) or known[:5]
    more = f" (of {len(known)})" if len(known) > len(near) else ""
    return (
        f"exclude names {name!r}, but the pool holds no such adapter; there are "
        f"{', '.join(near)}{more}."
    )
