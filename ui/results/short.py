"""The results in one picture: the same questions, answered by the base, with an adapter, without.

Four bars and two sentences that need no other word of this page; every number is read from the
files.
"""

from ramole_core import DEFAULT_METHOD

from ..parts.markup import escaped
from .scores import Evaluation
from .values import Span, at, text

FITS, HIDDEN = "iid", "ood"
NOTHING = (
    "Nothing is measured yet. The sections below say which command measures what.",
    "<p>Once it is, this place says in plain words what an adapter is worth.</p>",
)


def short_html(found: object) -> str:
    """The headline, the bars, and whether another way is ahead."""
    title, inside = NOTHING
    if isinstance(found, Evaluation) and (bars := bars_of(found)):
        title, drawn = headline(found), "".join(_bar(*bar) for bar in bars)
        told = "".join(f"<p>{escaped(sentence)}</p>" for sentence in _honest(found))
        rows, tasks = text(found.raw.get("rows_per_task")), len(at(found.raw, "tasks")) or "all"
        each = f", {rows} rows each" if rows else ""
        lead = (
            f"A score is the mean over {tasks} tasks{each}, from"
            " 0 (nothing right) to 100. The thin line is its 95 % interval: with other "
            "questions of the same tasks the mean would lie there."
        )
        inside = f'<ul class="rm-bars">{drawn}</ul>{told}<p class="quiet">{escaped(lead)}</p>'
    return (
        '<section class="rm-short" aria-labelledby="results-short-title">'
        f'<h2 id="results-short-title">{escaped(title)}</h2>{inside}</section>'
    )


def headline(found: Evaluation) -> str:
    """`22 points alone, 57 with an adapter that fits, 39 when that one is hidden`."""
    words = {"base": "points alone", "fits": "with an adapter that fits"}
    words["hidden"] = "when that one is hidden"
    said = [f"{s.mean:.0f} {words[kind]}" for _, s, kind in bars_of(found) if kind in words]
    return f"The same small model: {', '.join(said)}"


def bars_of(found: Evaluation) -> list[tuple[str, Span, str]]:
    """(words, score, kind for the colour), those that were measured."""
    fits, hidden = (found.cells.get(setting, {}) for setting in (FITS, HIDDEN))
    rows = (
        ("The base model alone", fits.get("base") or hidden.get("base"), "base"),
        ("RAMoLE, an adapter fits", fits.get(DEFAULT_METHOD), "fits"),
        ("RAMoLE, the one that fits is hidden", hidden.get(DEFAULT_METHOD), "hidden"),
        ("For comparison: the right adapter, chosen by hand", fits.get("perfect"), "right"),
    )
    return [(words, span, kind) for words, span, kind in rows if span is not None]


def _honest(found: Evaluation) -> list[str]:
    """Notes: whether another way is ahead, and what the retriever was trained on."""
    said, name = [], DEFAULT_METHOD
    for setting, when in ((FITS, "When an adapter fits"), (HIDDEN, "When it is hidden")):
        scores, best = found.cells.get(setting, {}), found.best(setting)
        if best and name in scores and best != name:
            said.append(
                f"{when}, another method, {best}, is ahead with {scores[best].mean:.0f}; "
                f"{name}, with which this page begins, has {scores[name].mean:.0f}."
            )
    tuned = found.tuned.replace("The retriever", "The part that finds adapters")
    return [*said, *([tuned] if tuned else [])]


def _bar(words: str, span: Span, kind: str) -> str:
    """The number is beside the bar in words, so the bar itself is not read out."""
    mean, low, high = (min(max(end, 0), 100) for end in (span.mean, *span.ends))
    line = (
        f'<i class="ends" style="left:{low:.1f}%;width:{high - low:.1f}%"></i>'
        if high > low
        else ""
    )
    return (
        f'<li class="{kind}"><span class="words">{escaped(words)}</span>'
        f'<span class="track" aria-hidden="true"><i class="fill" style="width:{mean:.1f}%"></i>'
        f"{line}</span><b>{span.mean:.0f}</b></li>"
    )
