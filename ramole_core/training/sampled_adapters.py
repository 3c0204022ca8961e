"""The adapters that a training row is mixed from: all of a step's, or those retrieved for it."""

import hashlib
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ramole_core.retrieval import Encoder
from ramole_core.retrieval.card_vector import adapter_vectors, card_texts
from ramole_core.retrieval.kept_index import Card
from ramole_core.training.recipe import MethodRecipe
from ramole_core.training.rows import Encoded


@dataclass(frozen=True)
class Near:
    """Finds adapters for texts."""

    find: Callable[[Sequence[str]], list[list[str]]]
    """The adapters' names for each text, the nearest first."""
    checksum: str = ""
    """Checksum of all that determines the result."""


def nearest_of(cards: Sequence[Card], encoder: Encoder) -> Near:
    """Orders these adapters as the retriever that serves does: by the cosine of their vectors
    (`card_vector.py`) to each text."""
    vectors = adapter_vectors(encoder.embed, cards)
    names = [card.name for card in cards]

    def near(texts: Sequence[str]) -> list[list[str]]:
        cosines = encoder.embed(texts) @ vectors.T
        return [[names[at] for at in np.argsort(-row, kind="stable")] for row in cosines]

    shown = json.dumps([encoder.checksum, [[c.name, card_texts(c)] for c in cards]])
    return Near(near, hashlib.sha256(shown.encode()).hexdigest())


class SampledAdapters:
    """Draw adapters by seed and step alone, so that a resumed run draws the same."""

    def __init__(self, recipe: MethodRecipe, names: Sequence[str], near: Near | None):
        """`near` is needed where the recipe's rows are mixed from those that are retrieved."""
        self._recipe, self._names, self._near = recipe, tuple(names), near
        self._known: dict[str, list[str]] = {}

    def of_step(self, step: int, rows: Sequence[Encoded]) -> list[tuple[str, ...]]:
        """Each row's adapters in a step of training."""
        seed = self._recipe.schedule.seed
        if self._found:
            chance = random.Random(f"{seed}/{step}/masked")
            return self._nearest(rows, [chance.random() < self._recipe.masked for _ in rows])
        return [keep_some(self._names, self._recipe.dropout, seed=seed, step=step)] * len(rows)

    def of_dev(self, rows: Sequence[Encoded]) -> list[tuple[str, ...]]:
        """Each row's adapters where a loss is measured, the same in every run."""
        if self._found:
            chances = [random.Random(f"dev/{row.text}").random() for row in rows]
            return self._nearest(rows, [one < self._recipe.masked for one in chances])
        return [self._names] * len(rows)

    @property
    def _found(self) -> bool:
        return self._near is not None and self._recipe.retrieved > 0

    def _nearest(self, rows: Sequence[Encoded], masked: Sequence[bool]) -> list[tuple[str, ...]]:
        assert self._near is not None
        if left := [row.text for row in rows if row.text not in self._known]:
            self._known.update(zip(left, self._near.find(left), strict=True))
        chosen = []
        for row, hides in zip(rows, masked, strict=True):
            order = [n for n in self._known[row.text] if not (hides and n == row.task)]
            chosen.append(tuple(order[: self._recipe.retrieved]))
        return chosen


def keep_some(names: Sequence[str], dropout: float, *, seed: int, step: int) -> tuple[str, ...]:
    """Drop LoRAs of a step: each stays with chance 1 - dropout, at least two do."""
    chance = random.Random(f"{seed}/{step}")
    order = chance.sample(list(names), len(names))
    kept = [name for name in order if chance.random() >= dropout]
    kept += [name for name in order if name not in kept][: max(0, 2 - len(kept))]
    return tuple(name for name in names if name in kept)
