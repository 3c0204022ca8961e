"""The results at a glance: one number of each section, which opens it and leads to it."""

from pathlib import Path

from ..parts.markup import escaped
from . import adapters, methods, retrieval, router, speed, stresses
from .scores import Evaluation
from .tables import spoken
from .values import Span

NOT_YET = "not measured yet"


def glance_html(folder: Path, found: Evaluation | None) -> str:
    """The tiles, in the order of the sections."""
    aims = [one for one in found.aims if one.reached is not None] if found else []
    reached = sum(one.reached is True for one in aims)
    tiles = (
        ("answers", "Answers", *_counted((reached, len(aims)), "aims for the answers reached")),
        ("choice", "Every task", *_tasks(found)),
        ("methods", "Methods", *_number(methods.compared(folder), "ways of mixing compared")),
        (
            "stresses",
            "Papers' cases",
            *_counted(stresses.measured(folder), "cases of single papers"),
        ),
        ("retrieval", "Finding", *_retrieval(folder, found)),
        ("adapters", "Adapters", *_counted(adapters.helping(folder), "clearly beat the base")),
        ("router", "Router", *router.headline(folder)),
        ("speed", "Speed", *_counted(speed.reached(folder), "speed aims reached")),
    )
    links = "".join(
        f'<li><a href="#results-{key}"><em>{escaped(title)}</em><b>{value or "–"}</b>'
        f"<span>{escaped(words if value else f'{words}: {NOT_YET}')}</span></a></li>"
        for key, title, value, words in tiles
        if key != "choice" or value
    )
    return f'<nav class="rm-glance" aria-label="Results at a glance"><ul>{links}</ul></nav>'


def _tasks(found: Evaluation | None) -> tuple[str, str]:
    return _number(len(found.tasks) if found else 0, "tasks, each with its own scores")


def _retrieval(folder: Path, found: Evaluation | None) -> tuple[str, str]:
    words = "of prompts find their own adapter first"
    if span := retrieval.headline(folder):
        return f"{_mean(span)} %", f"{words}, in the paper's pool"
    for spans in (found.retrieval if found else {}).values():
        if span := spans.get("first"):
            return f"{_mean(span)} %", words
    return "", words


def _counted(count: tuple[int, int] | None, words: str) -> tuple[str, str]:
    return (f"{count[0]} of {count[1]}", words) if count and count[1] else ("", words)


def _number(count: int, words: str) -> tuple[str, str]:
    return (str(count), words) if count else ("", words)


def _mean(span: Span) -> str:
    return spoken(Span(span.mean), digits=0)
