"""The summary: scores of the base, with an adapter and without; each task; failures; speed. Every
number is read from the files."""

from collections.abc import Sequence
from pathlib import Path

from ramole_core import DEFAULT_METHOD

from ..parts.markup import escaped
from .files import read
from .html import html
from .scores import Evaluation, evaluation
from .speed import rates
from .tables import Column, Table, tables
from .values import Span, at, number, span_of, text

FITS, HIDDEN = "iid", "ood"
POOR, WORSE = 35, 5
"""A task with its adapter is poor below so many points; a hidden one harms from so many on."""
NOTHING = "Nothing is measured yet. The sections below say which command measures what."
MORE = "The main tables, each with the command that made it, are in docs/results.md."
OWN_WORDS, OF_USE = "second_half.json", "usable.json"


def short_html(folder: Path) -> str:
    """Headline, bars, tasks, where it fails, speed."""
    found = evaluation(folder)
    if not isinstance(found, Evaluation) or not bars_of(found):
        return _whole(NOTHING, "")
    drawn = "".join(_bar(*bar) for bar in bars_of(found))
    rows, tasks = text(found.raw.get("rows_per_task")), len(at(found.raw, "tasks")) or "all"
    each = f", {rows} rows each" if rows else ""
    lead = (
        f"A score is the mean over {tasks} tasks{each}, from 0 (nothing right) to 100. The thin "
        "line is its 95 % interval: with other questions of the same tasks the mean would lie "
        f"there. {_tuned(found)}".strip()
    )
    told = "".join(f"<li>{escaped(one)}</li>" for one in fails(found, own_words(folder)))
    failing = f"<h3>Where it fails</h3><ul>{told}</ul>" if told else ""
    speed = f"<h3>How fast</h3><p>{escaped(rates(folder))}</p>" if rates(folder) else ""
    return _whole(
        headline(found),
        f'<ul class="rm-bars">{drawn}</ul><p class="quiet">{escaped(lead)}</p>'
        f'<div class="rm-both"><div>{"".join(map(html, by_task(found)))}</div>'
        f"<div>{failing}{speed}<p>{escaped(MORE)}</p></div></div>",
    )


def _whole(title: str, inside: str) -> str:
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


def by_task(found: Evaluation) -> list[Table]:
    """The base, and the default method with the task's adapter there and hidden; first the tasks
    where that adapter adds most."""
    base, fits, hidden = _scores(found)
    every = dict.fromkeys([*base, *fits, *hidden])
    names = sorted(every, key=lambda name: base.get(name, 0) - fits.get(name, 0))
    rows = {n: {"base": base.get(n), "fits": fits.get(n), "hidden": hidden.get(n)} for n in names}
    columns = {"base": Column("base alone", 0, drawn="heat")}
    columns |= {
        kind: Column(f"its adapter is {words}", 0, drawn="heat")
        for kind, words in (("fits", "there"), ("hidden", "hidden"))
    }
    return tables("Each task", "task", columns, {"": rows})


def own_words(folder: Path) -> list[str]:
    """Sentences on other people's prompts: adapters found, and usefulness of answers."""
    found = at(read(folder, OWN_WORDS), "phrased", DEFAULT_METHOD)
    among, first, base = (span_of(found.get(name)) for name in ("among", "leads", "base"))
    said = []
    if among and first and base:
        said.append(
            f"Of prompts in people's own words, {among.mean:.0f} % have the adapter that they ask "
            f"for among the three that answer, {first.mean:.0f} % in the first place; the base "
            f"answers {base.mean:.0f} %."
        )
    judged = at(read(folder, OF_USE), "judged")
    of_use, of = (number(judged.get(name)) for name in ("answers_of_use", "of"))
    if of_use is not None and of:
        said.append(f"Of {of:.0f} answers to such prompts, readers found {of_use:.0f} of use.")
    return said


def fails(found: Evaluation, further: Sequence[str] = ()) -> list[str]:
    """Sentences on what goes wrong: poor tasks, harm, another method ahead, and `further` ones."""
    base, fits, hidden = _scores(found)
    poor = [f"{n} {s:.0f}" for n, s in sorted(fits.items(), key=lambda one: one[1]) if s < POOR]
    harm = [
        f"{n} {s:.0f}, base {base[n]:.0f}" for n, s in hidden.items() if s <= base.get(n, 0) - WORSE
    ]
    said = [f"Poor even where its adapter is there: {', '.join(poor)}."] if poor else []
    said += [f"Worse than the base where its adapter is hidden: {'; '.join(harm)}."] if harm else []
    for setting, when in ((FITS, "When an adapter fits"), (HIDDEN, "When it is hidden")):
        scores, best = found.cells.get(setting, {}), found.best(setting)
        if best and DEFAULT_METHOD in scores and best != DEFAULT_METHOD:
            said.append(
                f"{when}, another method, {best}, is ahead with {scores[best].mean:.0f}; "
                f"{DEFAULT_METHOD}, with which this page begins, has "
                f"{scores[DEFAULT_METHOD].mean:.0f}."
            )
    return [*said, *further]


def _scores(found: Evaluation) -> tuple[dict[str, float], dict[str, float], dict[str, float]]:
    """By task: the base's, the default method's with its adapter, and without."""
    cells = at(found.raw, "cells")
    rows = (at(cells, FITS, "base") or at(cells, HIDDEN, "base"),)
    rows += tuple(at(cells, setting, DEFAULT_METHOD) for setting in (FITS, HIDDEN))
    base, fits, hidden = (
        {name: span.mean for name, raw in at(row, "by_task").items() if (span := span_of(raw))}
        for row in rows
    )
    return base, fits, hidden


def _tuned(found: Evaluation) -> str:
    return found.tuned.replace("The retriever", "The part that finds adapters")


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
