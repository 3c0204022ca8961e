"""The results at a glance: one number of each section, which leads to it."""

from pathlib import Path

from ..parts.markup import escaped
from . import adapters, retrieval, router, speed
from .answers import label
from .scores import Evaluation
from .tables import spoken
from .values import Span

NOT_YET = "not measured yet"


def glance_html(folder: Path, found: Evaluation | None) -> str:
    """The tiles, in the order of the sections."""
    tiles = (
        ("answers", *_answers(found)),
        ("retrieval", *_retrieval(folder, found)),
        ("adapters", *_counted(adapters.helping(folder), "adapters clearly beat the base")),
        ("router", *router.headline(folder)),
        ("speed", *_counted(speed.reached(folder), "speed aims reached")),
    )
    links = "".join(
        f'<li><a href="#results-{key}"><em>{key.capitalize()}</em><b>{value or "–"}</b>'
        f"<span>{escaped(words if value else f'{words}: {NOT_YET}')}</span></a></li>"
        for key, value, words in tiles
    )
    return f'<nav class="rm-glance" aria-label="Results at a glance"><ul>{links}</ul></nav>'


def _answers(found: Evaluation | None) -> tuple[str, str]:
    if found is not None:
        setting = "ood" if "ood" in found.cells else next(iter(found.settings))
        if best := found.best(setting):
            words = f"of 100 for {best}, the best mixing ({label(setting)})"
            return _mean(found.scores(setting)[best]), words
    return "", "the best mixing"


def _retrieval(folder: Path, found: Evaluation | None) -> tuple[str, str]:
    words = "right adapter found first"
    if span := retrieval.headline(folder):
        return f"{_mean(span, digits=0)} %", f"{words}, paper's pool"
    for setting, spans in (found.retrieval if found else {}).items():
        if span := spans.get("first"):
            return f"{_mean(span, digits=0)} %", f"{words} ({label(setting)})"
    return "", words


def _counted(count: tuple[int, int] | None, words: str) -> tuple[str, str]:
    return (f"{count[0]} of {count[1]}", words) if count else ("", words)


def _mean(span: Span, *, digits: int = 1) -> str:
    return spoken(Span(span.mean), digits=digits)
