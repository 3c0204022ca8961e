"""Bootstrap intervals: rows are drawn again with replacement, paired rows together."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np


@dataclass(frozen=True)
class Interval:
    """A mean and the 95 % interval of its bootstrap distribution."""

    mean: float
    low: float
    high: float

    def rounded(self, digits: int = 4) -> dict[str, float]:
        """The three numbers as a file keeps them."""
        return {name: round(value, digits) for name, value in asdict(self).items()}


def in_words(span: Mapping[str, float], *, sign: bool = False) -> str:
    """`50.12 [48.00, 52.00]`."""
    form = "+.2f" if sign else ".2f"
    return f"{span['mean']:{form}} [{span['low']:{form}}, {span['high']:{form}}]"


def bootstrap(values: Sequence[float], *, draws: int = 10_000, seed: int = 0) -> Interval:
    """The mean of `values` with its 95 % percentile interval."""
    array = np.asarray(values, dtype=np.float64)
    rows = np.random.default_rng(seed).integers(0, len(array), size=(draws, len(array)))
    low, high = np.percentile(array[rows].mean(axis=1), [2.5, 97.5])
    return Interval(float(array.mean()), float(low), float(high))


def bootstrap_groups(
    values: Sequence[float], groups: Sequence[str], *, draws: int = 10_000, seed: int = 0
) -> Interval:
    """The mean of `values` with the 95 % interval of drawing whole groups again, each with all of
    its values; `groups` names the group of each."""
    names = {name: place for place, name in enumerate(dict.fromkeys(groups))}
    sums, counts = np.zeros(len(names)), np.zeros(len(names))
    for value, group in zip(values, groups, strict=True):
        sums[names[group]] += value
        counts[names[group]] += 1
    drawn = np.random.default_rng(seed).integers(0, len(names), size=(draws, len(names)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return Interval(float(sums.sum() / counts.sum()), float(low), float(high))


def paired_difference(
    ours: Sequence[float], theirs: Sequence[float], *, draws: int = 10_000, seed: int = 0
) -> Interval:
    """The mean of ours - theirs over the same rows, with its 95 % percentile interval."""
    if len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} values cannot be paired with {len(theirs)}")
    return bootstrap(np.subtract(ours, theirs).tolist(), draws=draws, seed=seed)


def share_of_way(
    start: Sequence[float],
    end: Sequence[float],
    ours: Sequence[float],
    *,
    draws: int = 10_000,
    seed: int = 0,
) -> Interval | None:
    """How far from `start` to `end` we are on average, in percent, over the same units; the
    interval draws units again. None where start and end are level."""
    ways = np.stack([np.subtract(ours, start), np.subtract(end, start)]).astype(np.float64)
    if not ways[1].mean():
        return None
    units = np.random.default_rng(seed).integers(0, len(start), size=(draws, len(start)))
    went, whole = ways[:, units].mean(axis=2)
    shares = 100 * went[whole != 0] / whole[whole != 0]
    low, high = np.percentile(shares, [2.5, 97.5])
    return Interval(float(100 * ways[0].mean() / ways[1].mean()), float(low), float(high))
