"""All methods in one table: quality beside what each costs, and whether it takes new adapters."""

from pathlib import Path

from .files import Unmeasured, load, made_of, unreadable
from .scores import LABELS, Evaluation, read_evaluation
from .sections import made_html, section, unmeasured_html
from .situations import situations_html, situations_in
from .tables import box, head, plain, spoken
from .values import Raw, span_of, table, text

TITLE = "What does each method need?"
LEAD = (
    "Every method on the same pool and base: how good its answers are, how fast it writes alone "
    "and with seven others, how many numbers are trained for it, and whether it takes adapters "
    "that came after that."
)
FILE, SCORES, FURTHER = "methods.json", "methods_dev.json", "methods_further_dev.json"
"""What methods need, their scores, and those in situations beyond the rows of one task."""
REFERENCE = "ramole_plus"
"""Whom all others are compared with."""
ALONE, TOGETHER = "1", "8"


def html(folder: Path) -> str:
    """The section."""
    found, missing = read_evaluation(folder, SCORES)
    needs = load(folder, FILE)
    if not isinstance(needs, Unmeasured) and not table(needs.get("methods")):
        needs = unreadable(FILE)
    body = ""
    if found is not None or not isinstance(needs, Unmeasured):
        body = _table({} if isinstance(needs, Unmeasured) else table(needs.get("methods")), found)
    if found is not None:
        body += made_html(found.made)
    elif missing is not None:
        body += unmeasured_html(missing)
    if isinstance(needs, Unmeasured):
        body += unmeasured_html(needs)
    else:
        body += made_html(made_of(needs, FILE, ("machine", text(needs.get("machine")))))
    further = load(folder, FURTHER)
    if not isinstance(further, Unmeasured) and not situations_in(further.get("situations")):
        further = unreadable(FURTHER)
    if isinstance(further, Unmeasured):
        body += unmeasured_html(further)
    else:
        body += situations_html(situations_in(further["situations"]))
        body += made_html(made_of(further, FURTHER))
    return section("methods", TITLE, LEAD, body)


def compared(folder: Path) -> int:
    """How many methods have a score or a speed."""
    found, _ = read_evaluation(folder, SCORES)
    needs = load(folder, FILE)
    told = {} if isinstance(needs, Unmeasured) else table(needs.get("methods"))
    return len({*(found.methods if found else ()), *told})


def _table(needs: Raw, found: Evaluation | None) -> str:
    settings = list(found.settings) if found else []
    names = dict.fromkeys([*(found.methods if found else ()), *needs])
    rows = "".join(_row(name, table(needs.get(name)), found, settings) for name in names)
    heads = [head("method", scope="col")]
    heads += [head(LABELS.get(name, name), scope="col", kind="number") for name in settings]
    heads += [head("tokens/s alone", scope="col", kind="number")]
    heads += [head("tokens/s, eight rows", scope="col", kind="number")]
    heads += [head("trained numbers", scope="col", kind="number")]
    heads += [head("takes new adapters", scope="col")]
    below = (
        "Rates: median of the passes, in brackets least and most; a method of a fixed pool mixes "
        "all of it, the others what they find."
    )
    if found:
        below = (
            "Scores: mean over all rows, with the interval over rows; below it how far the method "
            f"is ahead of {REFERENCE}, with the interval over tasks, which decides. {below}"
        )
    return box("All methods", heads, rows, kind="names", below=below)


def _row(name: str, told: Raw, found: Evaluation | None, settings: list[str]) -> str:
    rates = table(told.get("tokens_a_second"))
    scores = "".join(_score(found, setting, name) for setting in settings) if found else ""
    speeds = "".join(_number(spoken(span_of(rates.get(n)))) for n in (ALONE, TOGETHER))
    trained = _count(told.get("trained")) if told else "–"
    unseen = told.get("unseen")
    takes = ("yes" if unseen else "no") if isinstance(unseen, bool) else "–"
    return (
        f"<tr>{head(name, below=text(told.get('paper')))}{scores}{speeds}"
        f"{plain(trained, kind='number')}{plain(takes)}</tr>"
    )


def _score(found: Evaluation, setting: str, name: str) -> str:
    """The score, and how far it is ahead of the reference."""
    words = spoken(found.scores(setting).get(name))
    for one in found.differences.get(setting, ()):
        if (one.method, one.rival) == (REFERENCE, name) and (ahead := one.turned()):
            words += f'<span class="below">{spoken(ahead, signed=True)}</span>'
    return _number(words)


def _number(words: str) -> str:
    return f'<td class="number">{words}</td>'


def _count(value: object) -> str:
    """`1.3 M`, `12 k`, `none`."""
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        return "none"
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.1f} {letter}"
    return str(value)
