"""Bootstrap intervals: rows are drawn again with replacement, paired rows together."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from jaxtyping import Float, Int

DRAWS = 10_000


@dataclass(frozen=True)
class Interval:
    """A mean and the 95 % interval of its bootstrap distribution."""

    mean: float
    low: float
    high: float

    def rounded(self, digits: int = 4) -> dict[str, float]:
        """The three numbers as a file keeps them."""
        return {name: round(value, digits) for name, value in asdict(self).items()}


def in_words(span: Mapping[str, float]) -> str:
    """`50.12 [48.00, 52.00]`."""
    return f"{span['mean']:.2f} [{span['low']:.2f}, {span['high']:.2f}]"


def _drawn(count: int) -> Int[np.ndarray, "draws n"]:
    return np.random.default_rng(0).integers(0, count, size=(DRAWS, count))


def _interval(mean: float, means: Float[np.ndarray, "draws"]) -> Interval:
    low, high = np.percentile(means, [2.5, 97.5])
    return Interval(float(mean), float(low), float(high))


def bootstrap(values: Sequence[float]) -> Interval:
    """The mean of `values` with its 95 % percentile interval."""
    array = np.asarray(values, dtype=np.float64)
    return _interval(array.mean(), array[_drawn(len(array))].mean(axis=1))


def bootstrap_groups(values: Sequence[float], groups: Sequence[Hashable]) -> Interval:
    """The mean of `values` with the 95 % interval of drawing whole groups again, each with all of
    its values; `groups` names the group of each."""
    names = {name: place for place, name in enumerate(dict.fromkeys(groups))}
    sums, counts = np.zeros(len(names)), np.zeros(len(names))
    for value, group in zip(values, groups, strict=True):
        sums[names[group]] += value
        counts[names[group]] += 1
    drawn = _drawn(len(names))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    return _interval(sums.sum() / counts.sum(), means)


def paired_difference(ours: Sequence[float], theirs: Sequence[float]) -> Interval:
    """The mean of ours - theirs over the same rows, with its 95 % percentile interval."""
    if len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} values cannot be paired with {len(theirs)}")
    return bootstrap(np.subtract(ours, theirs).tolist())


def compare_seeds(
    found: Mapping[str, Mapping[str, Sequence[Sequence[float]]]], *, ours: str
) -> dict[str, dict[str, dict[str, object]]]:
    """A row for each system: its score, by task the mean of each seed, and `OURS_minus` it.

    `found`: by task and system the score of each dev row, a list for each seed. Of several seeds
    the mean is taken row by row; intervals are of drawing tasks.
    """
    systems = next(iter(found.values()))
    means = {
        system: {task: np.mean(each[system], axis=0) for task, each in found.items()}
        for system in systems
    }
    owners = [task for task, rows in means[ours].items() for _ in rows]
    flat = {system: np.concatenate([*each.values()]) for system, each in means.items()}
    made: dict[str, dict[str, dict[str, object]]] = {}
    for system in systems:
        row: dict[str, object] = {**bootstrap_groups(flat[system].tolist(), owners).rounded(2)}
        row["by_task"] = {
            task: [round(float(np.mean(one)), 1) for one in each[system]]
            for task, each in found.items()
        }
        if system != ours:
            gap = bootstrap_groups((flat[ours] - flat[system]).tolist(), owners)
            row[f"{ours}_minus"] = gap.rounded(2)
        made[system] = {"score": row}
    return made


def share_of_way(
    start: Sequence[float], end: Sequence[float], ours: Sequence[float]
) -> Interval | None:
    """How far from `start` to `end` we are on average, in percent, over the same units; the
    interval draws units again. None where start and end are level."""
    ways = np.stack([np.subtract(ours, start), np.subtract(end, start)]).astype(np.float64)
    if not ways[1].mean():
        return None
    went, whole = ways[:, _drawn(len(start))].mean(axis=2)
    shares = 100 * went[whole != 0] / whole[whole != 0]
    return _interval(100 * ways[0].mean() / ways[1].mean(), shares)
