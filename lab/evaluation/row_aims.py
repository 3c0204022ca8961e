"""The aims of the row situations, IID, OOD and crowded; whether one is reached goes by tasks.

Differences are paired by row. Beside the interval over rows stands the one over tasks: the former
says what to expect of other rows of these tasks, the latter of other tasks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from lab.evaluation.intervals import paired_difference
from lab.evaluation.systems import ALONE, PERFECT, RANDOM

METHOD = "ramole_plus"
RIVALS = ("selection", "mixture", "similarity", "uniform_router", "random_router", RANDOM)
"""What needs no training, and the controls."""
NEEDED = RIVALS[:3]
"""No aim is judged without these."""
Scores = Mapping[str, Sequence[float]]
"""By task, one score a row."""


def judge_rows(
    situation: str,
    scores: Mapping[str, Scores],
    *,
    left: Mapping[str, Mapping[str, float]] | None = None,
) -> list[dict]:
    """The aims of this situation: what was wanted, what was measured, whether it was reached.

    `left`: percent of rows left to the base, by system; None where nobody counted them.
    """
    if METHOD not in scores or any(rival not in scores for rival in NEEDED):
        return []
    means = {name: mean_of(found) for name, found in scores.items()}
    if situation == "iid":
        best = max((n for n in scores if n not in (METHOD, *ALONE)), key=lambda n: means[n])
        aims = [_close(scores, best), *([] if left is None else [_seldom_left(left)])]
        return [_of_perfect(scores), *aims] if PERFECT in scores else aims
    best = max((name for name in RIVALS if name in scores), key=lambda name: means[name])
    aims = [_ahead(situation, scores, best)]
    return [*aims, _not_below_similarity(scores)] if situation == "ood" else aims


def _ahead(situation: str, scores: Mapping[str, Scores], rival: str) -> dict:
    gap = gap_between(scores[METHOD], scores[rival])
    return {
        "what": f"{situation}: {METHOD} over the best rival ({rival})",
        "aim": "at least 2 points, the interval over tasks above 0",
        "measured": _told(gap),
        "reached": gap["mean"] >= 2 and gap["task_low"] > 0,
    }


def _not_below_similarity(scores: Mapping[str, Scores]) -> dict:
    gap = gap_between(scores[METHOD], scores["similarity"])
    return {
        "what": f"ood: {METHOD} against similarity",
        "aim": "not below",
        "measured": _told(gap),
        "reached": gap["mean"] >= 0,
    }


def _of_perfect(scores: Mapping[str, Scores]) -> dict:
    share = 100 * mean_of(scores[METHOD]) / mean_of(scores[PERFECT])
    gap = gap_between(scores[METHOD], scores[PERFECT])
    return {
        "what": f"iid: {METHOD} of perfect selection",
        "aim": "at least 98 %",
        "measured": f"{share:.1f} % ({_told(gap)} points)",
        "reached": share >= 98,
    }


def _close(scores: Mapping[str, Scores], rival: str) -> dict:
    gap = gap_between(scores[METHOD], scores[rival])
    return {
        "what": f"iid: {METHOD} against the best other method ({rival})",
        "aim": "not below by 0.5 points, the interval over tasks neither",
        "measured": _told(gap),
        "reached": gap["task_low"] >= -0.5,
    }


def _seldom_left(left: Mapping[str, Mapping[str, float]]) -> dict:
    share = left.get(METHOD, {"mean": 0.0})["mean"]
    return {
        "what": "iid: rows left to the base",
        "aim": "at most 1 %",
        "measured": f"{share:.2f} %",
        "reached": share <= 1,
    }


def _told(gap: Mapping[str, float]) -> str:
    """A difference with both intervals."""
    return (
        f"{gap['mean']:+.1f}, over tasks [{gap['task_low']:+.1f}, {gap['task_high']:+.1f}], over "
        f"rows [{gap['low']:+.1f}, {gap['high']:+.1f}]"
    )


def flat(scores: Scores) -> list[float]:
    """All rows' scores, task by task."""
    return [value for rows in scores.values() for value in rows]


def mean_of(scores: Scores) -> float:
    """Over rows."""
    every = flat(scores)
    return sum(every) / len(every)


def gap_between(ours: Scores, theirs: Scores) -> dict[str, float]:
    """The mean of ours - theirs, its interval over rows (`low`, `high`), and the one over tasks
    (`task_low`, `task_high`)."""
    rows = asdict(paired_difference(flat(ours), flat(theirs)))
    tasks = paired_difference(_task_means(ours), _task_means(theirs))
    return rounded(rows | {"task_low": tasks.low, "task_high": tasks.high})


def _task_means(scores: Scores) -> list[float]:
    return [sum(rows) / len(rows) for rows in scores.values()]


def rounded(numbers: Mapping[str, float]) -> dict[str, float]:
    """To two digits."""
    return {name: round(number, 2) for name, number in numbers.items()}
