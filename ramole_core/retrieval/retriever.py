"""The retriever: finds the nearest adapters for a prompt.

An adapter's vector is that of its examples and its card's words (`card_vector.py`), kept in an
index (`kept_index.py`); the score is the cosine to the prompt's vector.
"""

import difflib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32

from ramole_core.errors import RamoleError
from ramole_core.retrieval.encoder import RecentVectors
from ramole_core.retrieval.index import AdapterIndex
from ramole_core.retrieval.kept_index import Card, Cards, Embedder, KeptIndex
from ramole_core.retrieval.vectors import cosines

BLIND = 8
"""Adapters without examples that are examined at most, beside the nearest of a large pool."""


@dataclass(frozen=True)
class Hit:
    """An adapter that was found."""

    name: str
    score: float
    """Cosine similarity, -1 to 1."""
    owner: str | None = None
    """None: the sample pool."""


class Retriever(KeptIndex):
    """Find adapters; a listener that keeps the index in step with the pool. Thread-safe."""

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
        super().__init__(index, pool=pool, encoder=encoder)
        self.recent = recent or RecentVectors(encoder.embed)

    @property
    def encoder_checksum(self) -> str:
        """Checksum of the sentence encoder and its tuning."""
        return self._encoder.checksum

    def embed(self, texts: Sequence[str]) -> Float32[np.ndarray, "n d"]:
        """Vectors of unit length, the instruction included."""
        return self._encoder.embed(texts)

    def count_tokens(self, texts: Sequence[str]) -> int:
        """Tokens of all these texts, as the encoder has them."""
        return self._encoder.count_tokens(texts)

    def retrieve(
        self, text: str, k: int = 3, exclude: Collection[str] = (), owner: str | None = None
    ) -> list[Hit]:
        """The k adapters that `owner` may see and that are nearest to `text`, best first.

        Fewer than k when there are fewer. Raises RamoleError for an empty text or pool, k below
        1, an unknown name in `exclude`, or when `exclude` leaves nothing.
        """
        cards = self.visible(k, exclude, owner)
        return self._nearest(self._vector(text), k, cards)

    def candidates(
        self, text: str, *, count: int, exclude: Collection[str] = (), owner: str | None = None
    ) -> list[Hit]:
        """Up to `count` adapters to examine: the nearest, best first, and after them those that
        show no examples, whose score is nan.

        Where not all can be examined, at most BLIND of the latter, and no more than half: those
        whose names or descriptions are nearest. Raises RamoleError as `retrieve` does.
        """
        cards = self.visible(count, exclude, owner)
        known = {key: card for key, card in cards.items() if not card.blind}
        blind = {key: card for key, card in cards.items() if card.blind}
        room = len(blind) if len(cards) <= count else min(BLIND, count // 2)
        vector = self._vector(text)
        unknown = self._nearest(vector, min(room, count), blind) if blind and room else []
        found = self._nearest(vector, count - len(unknown), known) if known else []
        return found + [replace(hit, score=float("nan")) for hit in unknown]

    def vectors(self, texts: Sequence[str]) -> list[Float32[np.ndarray, "d"]]:
        """Vectors as by `embed`, cached for the last prompts."""
        return self.recent(texts)

    def neighbours(self, card: Card, k: int = 3, owner: str | None = None) -> list[Hit]:
        """The k adapters that `owner` may see and that are nearest to `card`, itself left out;
        raises RamoleError for a k below 1."""
        _check_count(k)
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

    def visible(self, k: int, exclude: Collection[str], owner: str | None) -> dict[str, Card]:
        """Cards visible to `owner` and not excluded, by key; raises as `retrieve` does."""
        _check_count(k)
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

    def _vector(self, text: str) -> Float32[np.ndarray, "d"]:
        if not text.strip():
            raise RamoleError("The text to find adapters for is empty; type one.")
        return self.recent([text])[0]

    def _nearest(
        self, vector: Float32[np.ndarray, "d"], k: int, cards: dict[str, Card]
    ) -> list[Hit]:
        found = self.use(
            lambda index: index.query(vector, k=k, among=cards),
            until=lambda found: bool(found) or not cards,
        )
        return [Hit(cards[key].name, score, cards[key].owner) for key, score in found]

    def _vectors(self, cards: Sequence[Card]) -> Float32[np.ndarray, "n d"]:
        keys = [card.key for card in cards]
        entries = self.use(
            lambda index: index.read(keys), until=lambda entries: entries.keys() >= {*keys}
        )
        lost = [card.name for card in cards if card.key not in entries]
        if lost:
            raise RamoleError(f"The pool holds no adapter {', '.join(lost)}; it was removed.")
        return np.stack([entries[key].vector for key in keys])


def _unknown(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=5, cutoff=0.5) or known[:5]
    more = f" (of {len(known)})" if len(known) > len(near) else ""
    return (
        f"exclude names {name!r}, but the pool holds no such adapter; there are "
        f"{', '.join(near)}{more}."
    )


def _check_count(k: int) -> None:
    if k < 1:
        raise RamoleError(f"k={k}; it is the number of adapters to retrieve, at least 1.")
