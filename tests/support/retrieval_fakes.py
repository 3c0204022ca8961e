"""A pool of names and texts, and an encoder whose vectors are known without a model."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

D = 19


@dataclass(frozen=True)
class FakeCard:
    name: str
    owner: str | None = None
    texts: tuple[str, ...] = ("one", "two")
    blind: bool = False
    description: str = ""

    @property
    def key(self) -> str:
        return f"{self.owner or 'pool'}/{self.name}"


@dataclass
class FakePool:
    held: dict[str, FakeCard] = field(default_factory=dict)
    listeners: list = field(default_factory=list)

    def put(self, card: FakeCard) -> FakeCard:
        self.held[card.key] = card
        for listener in self.listeners:
            listener.added(card)
        return card

    def take(self, card: FakeCard) -> None:
        del self.held[card.key]
        for listener in self.listeners:
            listener.removed(card)

    def all_cards(self) -> list[FakeCard]:
        return list(self.held.values())

    def cards(self, owner: str | None = None) -> list[FakeCard]:
        return [card for card in self.held.values() if card.owner in (None, owner)]


class FakeEncoder:
    """A text's vector is drawn from its hash: equal texts agree, others are unrelated."""

    def __init__(self, d: int = D, checksum: str = "first"):
        self.d = d
        self.checksum = checksum
        self.calls: list[list[str]] = []

    def count_tokens(self, texts: Sequence[str]) -> int:
        return sum(len(text.split()) for text in texts)

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        self.calls.append(list(texts))
        rows = np.zeros((len(texts), self.d), np.float32)
        for row, text in zip(rows, texts, strict=True):
            seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
            row[:] = np.random.default_rng(seed).normal(size=self.d)
            row /= np.linalg.norm(row)
        return rows
