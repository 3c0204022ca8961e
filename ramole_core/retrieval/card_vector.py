"""An adapter's vector: the mean over its example inputs, and a share for its card's words.

    v = unit((1 - WORDS) unit(mean over m examples) + WORDS unit(words))

The mean alone is LoraRetriever's (arXiv 2402.09997, eq. 1). It is made of the training data's
prompts; users' prompts are worded more as cards are. Without words it is the mean, and an adapter
without examples has the vector of its words or name.
"""

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32

from ramole_core.retrieval.encoder import unit

EXAMPLES = 20
"""m of the paper: how many example inputs make a vector."""
WORDS = 0.3
"""The share of the card's own words, where it shows examples too; chosen on written prompts."""
MAX_CHARACTERS = 400
"""Characters of the words that count: a card has its task first, licences and data last."""


Embed = Callable[[Sequence[str]], Float32[np.ndarray, "n d"]]
"""From texts to vectors."""


@runtime_checkable
class Card(Protocol):
    """An adapter, as retrieval needs it."""

    @property
    def name(self) -> str: ...
    @property
    def owner(self) -> str | None: ...
    @property
    def key(self) -> str: ...
    @property
    def texts(self) -> tuple[str, ...]: ...
    @property
    def description(self) -> str: ...
    @property
    def blind(self) -> bool:
        """Whether it shows no examples."""
        ...


def card_texts(card: Card) -> tuple[str, ...]:
    """The texts to embed: its first examples, then its words; else its name."""
    texts = tuple(card.texts[:EXAMPLES]) or (card.name,)
    return (*texts, words) if (words := card_words(card)) else texts


def card_words(card: Card) -> str:
    """The card's description, where examples make the rest of its vector; else empty."""
    return "" if card.blind else card.description[:MAX_CHARACTERS].strip()


def card_vector(card: Card, rows: Float32[np.ndarray, "n d"]) -> Float32[np.ndarray, "d"]:
    """Its unit vector, from the vectors of `card_texts`."""
    if not card_words(card):
        return unit(rows.mean(0, keepdims=True))[0]
    return with_words(rows[:-1].mean(0, keepdims=True), rows[-1])[0]


def with_words(
    means: Float32[np.ndarray, "n d"], words: Float32[np.ndarray, "d"]
) -> Float32[np.ndarray, "n d"]:
    """Unit vectors from means over examples and the vector of the words."""
    return unit((1 - WORDS) * unit(means) + WORDS * unit(words[None]))


def adapter_vectors(embed: Embed, cards: Sequence[Card]) -> Float32[np.ndarray, "k d"]:
    """Unit vectors of some cards, all texts embedded together."""
    texts = [card_texts(card) for card in cards]
    rows = embed([text for group in texts for text in group])
    groups = np.split(rows, np.cumsum([len(group) for group in texts])[:-1])
    return np.stack([card_vector(card, group) for card, group in zip(cards, groups, strict=True)])
