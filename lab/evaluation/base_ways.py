"""Ways to decide between the base and the adapters, each a line over a few facts of a text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from ramole_core.retrieval.encoder import unit
from ramole_core.training.calibrate import DOUBT
from ramole_core.training.lines import Line, fit_line

Facts = Mapping[str, Float[np.ndarray, "n"]]
"""What is known of each text, by name."""


@dataclass(frozen=True)
class Way:
    """One way to decide: a line over these facts, or fixed weights for them."""

    name: str
    facts: tuple[str, ...]
    fixed: tuple[float, ...] = ()
    """Weights of the facts; only the threshold is fitted. Empty: the weights are fitted too."""
    fitted: bool = True
    """False: nothing is fitted, the threshold is 0."""
    doubtful: tuple[str, ...] = ()
    """Facts that count beside the others where the line is in doubt."""
    everywhere: bool = False
    """They count for every text."""


WAYS = (
    Way("constant threshold on the best similarity", ("best",)),
    Way("the base's card, nearest wins (nothing fitted)", ("best", "base"), (1.0, -1.0), False),
    Way("the base's card, fitted threshold", ("best", "base"), (1.0, -1.0)),
    Way("the base's card, fitted slope and threshold", ("best", "base")),
    Way("nearest prompt of the base's card", ("best", "nearest")),
    Way("mean of its three nearest prompts", ("best", "nearest3")),
    Way("z-score of each adapter over everyday prompts", ("z",)),
    Way("z-score, beside the base's card", ("z", "base")),
    Way("best, base's card and gap to the second", ("best", "base", "gap")),
    Way(
        "with the untuned encoder's margin beside it", ("best", "base", "untuned"), (1.0, -1.0, 1.0)
    ),
    Way("response in doubt", ("best", "base"), (1.0, -1.0), doubtful=("own", "all")),
    Way(
        "response everywhere",
        ("best", "base"),
        (1.0, -1.0),
        doubtful=("own", "all"),
        everywhere=True,
    ),
)


@dataclass(frozen=True)
class Decider:
    """A fitted way: positive where adapters answer."""

    way: Way
    line: Line
    heard: Line | None

    def __call__(self, facts: Facts) -> Float[np.ndarray, "n"]:
        x = _columns(self.way, facts)
        worth = self.line(x)
        if self.heard is None or any(name not in facts for name in self.way.doubtful):
            return worth
        heard = self.heard(np.column_stack([x, *(facts[name] for name in self.way.doubtful)]))
        return heard if self.way.everywhere else np.where(np.abs(worth) < DOUBT, heard, worth)


def fit_way(way: Way, wanted: Facts, other: Facts) -> Decider:
    """The way, fitted on texts for the adapters and texts for the base."""
    high, low = _columns(way, wanted), _columns(way, other)
    line = fit_line(high, low) if way.fitted else Line(np.ones(high.shape[1]), 0.0)
    heard = None
    if way.doubtful:
        high, low = (
            np.column_stack([x, *(facts[name] for name in way.doubtful)])
            for x, facts in ((high, wanted), (low, other))
        )
        heard = fit_line(high, low)
    return Decider(way, line, heard)


def _columns(way: Way, facts: Facts) -> Float[np.ndarray, "n f"]:
    columns = [facts[name] for name in way.facts]
    if way.fixed:
        columns = [sum(w * column for w, column in zip(way.fixed, columns, strict=True))]
    return np.column_stack(columns)


def facts_of(
    rows: Float[np.ndarray, "n d"],
    pool: Float[np.ndarray, "a d"],
    card: Float[np.ndarray, "c d"],
    *,
    masked: Sequence[int] | None = None,
) -> dict[str, Float[np.ndarray, "n"]]:
    """What similarities say of each text; `masked`: the adapter that is left out for each."""
    scores = rows @ pool.T
    usual = card @ pool.T
    z = (scores - usual.mean(0)) / usual.std(0)
    if masked is not None:
        scores[np.arange(len(rows)), list(masked)] = -np.inf
        z[np.arange(len(rows)), list(masked)] = -np.inf
    order = np.sort(scores, axis=1)[:, ::-1]
    near = np.sort(rows @ card.T, axis=1)[:, ::-1]
    return {
        "best": order[:, 0],
        "gap": order[:, 0] - order[:, 1],
        "z": z.max(1),
        "base": rows @ unit(card.mean(0, keepdims=True))[0],
        "nearest": near[:, 0],
        "nearest3": near[:, :3].mean(1),
        "first": scores.argmax(1).astype(np.float64),
    }


def take(facts: Facts, rows: Float[np.ndarray, "n"]) -> Facts:
    """The facts of some of the texts."""
    return {name: values[rows] for name, values in facts.items()}
