"""The results in one picture: the same questions, answered by the base, with an adapter, without.

Four bars and two sentences that need no other word of this page; every number is read from the
files.
"""

from ramole_core import DEFAULT_METHOD

from ..parts.markup import escaped
from .scores import Evaluation
from .tables import spoken
from .values import Span

FITS, HIDDEN = "iid", "ood"
BASE, RIGHT = "base", "perfect"
NOTHING = (
    "Nothing is measured yet. The sections below say which command measures what.",
    "Once it is, this place says in plain words what an adapter is worth.",
)


def short_html(found: Evaluation | None) -> str:
    """The headline, the bars, and what did not come out as hoped."""
    bars = bars_of(found) if found else []
    if found is None or not bars:
        title, lead = NOTHING
        return _frame(title, f"<p>{lead}</p>")
    drawn = "".join(_bar(words, span, kind) for words, span, kind in bars)
    told = "".join(f"<p>{escaped(sentence)}</p>" for sentence in _honest(found))
    rows = dict(found.made.facts).get("rows", "")
    lead = (
        f"A score is the mean over {len(found.tasks) or 'all'} tasks"
        f"{f' ({rows})' if rows else ''}, from 0 (nothing right) to 100. The thin line is its 95 % "
        "interval: with other questions of the same tasks the mean would lie there."
    )
    return _frame(
        headline(found),
        f'<ul class="rm-bars">{drawn}</ul><div class="rm-told">'
        f'{told}<p class="quiet">{escaped(lead)}</p></div>',
    )


def headline(found: Evaluation) -> str:
    """`22 points alone, 57 with an adapter that fits, 39 when that one is hidden`."""
    name = _method(found)
    points = {
        "points alone": found.scores(FITS).get(BASE) or found.scores(HIDDEN).get(BASE),
        "with an adapter that fits": found.scores(FITS).get(name),
        "when that one is hidden": found.scores(HIDDEN).get(name),
    }
    said = [f"{span.mean:.0f} {words}" for words, span in points.items() if span]
    if not said:
        return "What was measured"
    return f"The same small model: {', '.join(said)}"


def bars_of(found: Evaluation) -> list[tuple[str, Span, str]]:
    """(words, score, kind for the colour), those that were measured."""
    fits, hidden, name = found.scores(FITS), found.scores(HIDDEN), _method(found)
    rows = (
        ("The base model alone", fits.get(BASE) or hidden.get(BASE), "base"),
        ("RAMoLE, an adapter fits", fits.get(name), "fits"),
        ("RAMoLE, the one that fits is hidden", hidden.get(name), "hidden"),
        ("For comparison: the right adapter, chosen by hand", fits.get(RIGHT), "right"),
    )
    return [(words, span, kind) for words, span, kind in rows if span is not None]


def _method(found: Evaluation) -> str:
    """What the page mixes with, else what mixes best."""
    scores = found.scores(FITS) or found.scores(HIDDEN)
    if DEFAULT_METHOD in scores:
        return DEFAULT_METHOD
    return found.best(FITS) or found.best(HIDDEN) or ""


def _honest(found: Evaluation) -> list[str]:
    """Whether another way is ahead, and how many aims were not reached."""
    said, name = [], _method(found)
    for setting, when in ((FITS, "When an adapter fits"), (HIDDEN, "When it is hidden")):
        scores, best = found.scores(setting), found.best(setting)
        if best and name in scores and best != name:
            said.append(
                f"{when}, another method, {best}, is ahead with {scores[best].mean:.0f}; "
                f"{name}, with which this page begins, has {scores[name].mean:.0f}."
            )
    judged = [one for one in found.aims if one.reached is not None]
    missed = sum(one.reached is False for one in judged)
    if judged:
        said.append(
            f"Of {len(judged)} aims that were set before measuring, {len(judged) - missed} were "
            f"reached and {missed} not."
        )
    if found.tuned:
        said.append(found.tuned.replace("The retriever", "The part that finds adapters"))
    return said


def _bar(words: str, span: Span, kind: str) -> str:
    """The number is beside the bar in words, so the bar itself is not read out."""
    mean = min(max(span.mean, 0), 100)
    line = ""
    if span.low is not None and span.high is not None:
        low, high = (min(max(end, 0), 100) for end in (span.low, span.high))
        line = f'<i class="ends" style="left:{low:.1f}%;width:{high - low:.1f}%"></i>'
    return (
        f'<li class="{kind}"><span class="words">{escaped(words)}</span>'
        f'<span class="track" aria-hidden="true"><i class="fill" style="width:{mean:.1f}%"></i>'
        f"{line}</span><b>{spoken(Span(span.mean), digits=0)}</b></li>"
    )


def _frame(title: str, inside: str) -> str:
    return (
        '<section class="rm-short" aria-labelledby="results-short-title">'
        f'<h2 id="results-short-title">{escaped(title)}</h2>{inside}</section>'
    )
