"""The aims of the situations beyond the rows of one task: what was wanted, and what came.

Where thresholds are fitted on a part of the prompts, the others decide. Every aim that says "above"
goes by the interval over the situation's units; one that names a percentage goes by the mean, and
the interval stands beside it.
"""

from collections.abc import Mapping

from lab.evaluation.intervals import in_words
from lab.evaluation.systems import PERFECT
from lab.evaluation.written import HELD_OUT

OURS = "ramole_plus"


def judge_situation(name: str, table: Mapping) -> list[dict]:
    """The aims of a situation whose table it is; none where ours was not measured."""
    if OURS not in table["systems"]:
        return []
    aims = {
        "switch": _switch,
        "follow-up": _follow_up,
        "composite": _composite,
        "permuted": _permuted,
        "open": _open,
        "phrased": _phrased,
        "uploads": _uploads,
    }
    parts = table.get("parts")
    if parts is not None:  # what a threshold was fitted on decides nothing
        table = parts.get(HELD_OUT, {"systems": {}})
        if OURS not in table["systems"]:
            return []
    return aims[name](table) if name in aims else []


def _switch(table: Mapping) -> list[dict]:
    gap, way = _gap(table, "selection"), _way(table)
    return [
        *_not_below("switch", "selection found anew each turn", gap),
        *_at_least("switch: share of the way from mixture to the right adapter alone", way, 90),
    ]


def _follow_up(table: Mapping) -> list[dict]:
    return [
        *_at_least("follow-up: the right adapter is kept", _mean(table, "right"), 85),
        *_above("follow-up", "similarity found anew each turn", _gap(table, "selection")),
    ]


def _composite(table: Mapping) -> list[dict]:
    what = "composite: share of the way from mixture to the oracle that switches"
    way = _way(table)
    ahead = "composite: tokens where the right adapter is ahead"
    return [
        *_at_least(what, way, 50, above=True),
        *_at_least(ahead, _mean(table, "ahead"), 85),
    ]


def _permuted(table: Mapping) -> list[dict]:
    found = []
    perfect, ours = _mean(table, "score", PERFECT), _mean(table, "score")
    if perfect and ours and perfect["mean"]:
        share = 100 * ours["mean"] / perfect["mean"]
        what = "permuted: of the right adapter alone"
        found.append(_aim(what, "at least 92 %", f"{share:.1f} %", share >= 92))
    return [*found, *_above("permuted", "mixture", _gap(table, "mixture"))]


def _open(table: Mapping) -> list[dict]:
    right, same = _mean(table, "right"), _mean(table, "same")
    aims = _at_least("open, unseen families: left to the base", right, 97)
    if right and same:
        what = "open, unseen families: token for token the base's answer"
        reached = same["mean"] >= right["mean"] > 0
        aims.append(_aim(what, "wherever it is left to the base", in_words(same), reached))
    return aims


def _phrased(table: Mapping) -> list[dict]:
    aims = _at_least("phrased: the right adapter first", _mean(table, "right"), 95)
    if left := _mean(table, "left"):
        what, aim = "phrased: left to the base", "at most 3 %"
        aims.append(_aim(what, aim, in_words(left), left["mean"] <= 3))
    return aims


def _uploads(table: Mapping) -> list[dict]:
    return _at_least("uploads: found first", _mean(table, "right"), 90)


def _mean(table: Mapping, measure: str, system: str = OURS) -> Mapping[str, float] | None:
    return table["systems"].get(system, {}).get(measure)


def _gap(table: Mapping, rival: str) -> Mapping[str, float] | None:
    """Ours minus the rival."""
    for row in table.get("differences", ()):
        if (row["method"], row["rival"]) == (OURS, rival):
            return {name: row[name] for name in ("mean", "low", "high")}
    return None


def _way(table: Mapping) -> Mapping[str, float] | None:
    return table.get("way", {}).get("percent", {}).get(OURS)


def _at_least(
    what: str, span: Mapping[str, float] | None, percent: int, *, above: bool = False
) -> list[dict]:
    """An aim of so many percent; `above`: the interval must be above 0 too."""
    if span is None:
        return []
    reached = span["mean"] >= percent and (not above or span["low"] > 0)
    aim = f"at least {percent} %" + (", the interval above 0" if above else "")
    return [_aim(what, aim, in_words(span), reached)]


def _above(name: str, rival: str, gap: Mapping[str, float] | None) -> list[dict]:
    if gap is None:
        return []
    what, aim = f"{name}: {OURS} over {rival}", "the interval above 0"
    return [_aim(what, aim, in_words(gap, sign=True), gap["low"] > 0)]


def _not_below(name: str, rival: str, gap: Mapping[str, float] | None) -> list[dict]:
    if gap is None:
        return []
    what = f"{name}: {OURS} against {rival}"
    return [_aim(what, "not below", in_words(gap, sign=True), gap["mean"] >= 0)]


def _aim(what: str, aim: str, measured: str, reached: bool) -> dict:
    return {"what": what, "aim": aim, "measured": measured, "reached": reached}
