"""All methods in one table: quality beside what each costs, and whether it takes new adapters."""

from pathlib import Path

from .files import Unmeasured, load, made_of, unreadable
from .scores import LABELS, Evaluation
from .sections import made_html, section, unmeasured_html
from .tables import box, cell, head, plain
from .values import Raw, span_of, table, text

TITLE = "What does each method need?"
LEAD = (
    "Every method on the same pool and base: how good its answers are, how fast it writes alone "
    "and with seven others, how many numbers are trained for it, and whether it takes adapters "
    "that came after that."
)
FILE = "methods.json"
ALONE, TOGETHER = "1", "8"


def html(folder: Path, found: Evaluation | None) -> str:
    """The section."""
    raw = load(folder, FILE)
    if not isinstance(raw, Unmeasured) and not table(raw.get("methods")):
        raw = unreadable(FILE)
    if isinstance(raw, Unmeasured):
        return section("methods", TITLE, LEAD, unmeasured_html(raw))
    body = _table(raw, found) + made_html(made_of(raw, FILE, ("machine", text(raw.get("machine")))))
    return section("methods", TITLE, LEAD, body)


def _table(raw: Raw, found: Evaluation | None) -> str:
    settings = list(found.settings) if found else []
    rows = ""
    for name, value in table(raw.get("methods")).items():
        told = table(value)
        rates = table(told.get("tokens_a_second"))
        scores = "".join(cell(found.scores(s).get(name)) for s in settings) if found else ""
        rows += (
            f"<tr>{head(name, below=text(told.get('paper')))}{scores}"
            f"{cell(span_of(rates.get(ALONE)))}{cell(span_of(rates.get(TOGETHER)))}"
            f"{plain(_count(told.get('trained')), kind='number')}"
            f"{plain('yes' if told.get('unseen') is True else 'no')}</tr>"
        )
    heads = [head("method", scope="col")]
    heads += [head(LABELS.get(name, name), scope="col", kind="number") for name in settings]
    heads += [head("tokens/s alone", scope="col", kind="number")]
    heads += [head("tokens/s, eight rows", scope="col", kind="number")]
    heads += [head("trained numbers", scope="col", kind="number")]
    heads += [head("takes new adapters", scope="col")]
    below = (
        "Scores as in the first table. Rates: median of the passes, in brackets least and most; a "
        "method of a fixed pool mixes all of it, the others what they find."
    )
    return box("All methods", heads, rows, kind="names", below=below)


def _count(value: object) -> str:
    """`1.3 M`, `12 k`, `none`."""
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        return "none"
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.1f} {letter}"
    return str(value)
