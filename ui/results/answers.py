"""Quality of answers: methods x settings, situations, and one setting in detail."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from .files import made_of, read
from .scores import (
    FURTHER,
    ON_DEV,
    SEVERAL,
    Evaluation,
    evaluation,
    evaluation_of,
    label,
    read_evaluation,
)
from .situations import several_tasks, situations
from .tables import Block, Column, Fold, Section, Table, Unmeasured, tables
from .values import Raw, Span, at, items, span_of, spans_of, text

SITUATIONS = "Chats, other people's words, everyday talk, and more situations"
TOGETHER = "Several tasks in one prompt"
ROWS = "What each row is"
OTHERS = "The same, scored leniently, and for adapters that came after the router was trained"
BRIEF = ("base", "perfect", "ramole_plus", "ramole", "mixture", "similarity")
"""The methods of README's table, beside the best of each setting."""
WHAT = {"is": Column("what it is", drawn="words")}
CHOSEN = "The same on dev rows, which choices were made on"


def blocks(folder: Path, *, brief: bool = False) -> list[Block]:
    """The main table beside the paper's, the rest folded away; in brief without further scores."""
    found = evaluation(folder)
    if isinstance(found, Unmeasured):
        return [found]
    further, split = read(folder, FURTHER), text(found.raw.get("split"))
    chosen = None if split == "dev" else read_evaluation(folder, ON_DEV)
    ways = {name: {"is": words} for name, words in found.methods.items()}
    several = read(folder, SEVERAL)
    folds: dict[str, list[Block]] = {
        SITUATIONS: [*_more(found, further), *situations(found.raw), *_others_of(found, further)],
        TOGETHER: [*several_tasks(several), *([made_of(several, SEVERAL)] if several else [])],
        ROWS: [*tables("Methods", "method", WHAT, {"": ways})],
        OTHERS: list(_others(found)),
        CHOSEN: [*main(chosen), chosen.made] if isinstance(chosen, Evaluation) else [],
    }
    if further:
        folds[SITUATIONS].append(made_of(further, FURTHER))
    left = (ROWS, OTHERS) if brief else ()
    folded = [
        Fold(title, inside) for title, inside in folds.items() if inside and title not in left
    ]
    return [*main(found), found.made, *_published(found.raw), *folded]


def main(found: Evaluation, *, brief: bool = False) -> list[Table]:
    """Methods x settings, the best way of mixing bold; in brief a few methods without
    differences."""
    said = {name: words for name, words in found.settings.items() if words and label(name) == name}
    meanings = "".join(f"{name}: {words}. " for name, words in said.items())
    note = (
        f"{meanings}Bold: the best way of mixing; base, perfect (the right adapter alone) and "
        "selection use one adapter or none. Intervals of scores are over rows, of differences over "
        f"tasks. {found.tuned}"
    )
    columns, rows = found.compared()
    if brief:
        columns = {key: one for key, one in columns.items() if not one.signed}
        best = {found.best(setting) for setting in found.cells}
        rows = {name: row for name, row in rows.items() if name in best.union(BRIEF)}
        note = f"{meanings}Bold: best mix; perfect: the right adapter. Intervals are over rows."
    return tables("Mean score of each method, by setting", "method", columns, {"": rows}, note)


def _more(found: Evaluation, further: Raw) -> list[Table]:
    """The settings of rows that the file of situations has beside the main table's."""
    if not (more := evaluation_of(further, FURTHER)):
        return []
    settings = {n: said for n, said in more.settings.items() if n not in found.settings}
    return main(replace(more, settings=settings)) if settings else []


def _others_of(found: Evaluation, further: Raw) -> list[Table]:
    """The situations that the main table's file does not have."""
    known, every = at(found.raw, "situations"), at(further, "situations")
    return situations({"situations": {name: every[name] for name in every if name not in known}})


def differences(found: Evaluation, setting: str) -> list[Table]:
    """Differences of methods over the same rows."""
    groups: dict[str, Raw] = {}
    for one in map(at, items(at(found.raw, "differences").get(setting))):
        span, method, rival = span_of(one), text(one.get("method")), text(one.get("rival"))
        if span and method and rival:
            said = span.judged("clearly ahead", "clearly behind")
            groups.setdefault(method, {})[f"minus {rival}"] = {"gap": span, "so": said}
    columns = {"gap": Column("points", 1, True, "around 0")}
    columns["so"] = Column("in words", drawn="words")
    note = "The thin upright line is zero: an interval that crosses it decides nothing."
    caption = f"Differences over the same rows, {label(setting)}"
    return tables(caption, "difference", columns, groups, note)


def by_task(found: Evaluation, setting: str) -> list[Table]:
    """Tasks x methods, grouped by domain."""
    rows = at(found.raw, "cells", setting)
    scores = {name: spans_of(at(rows, name, "by_task")) for name in found.cells[setting]}
    tasks, groups = at(found.raw, "tasks"), {}
    for task in dict.fromkeys([*tasks, *(task for row in scores.values() for task in row)]):
        row = {name: spans[task].mean for name, spans in scores.items() if task in spans}
        best = max([0.01, *row.values()])
        cells = {name: Span(mean, best=mean >= best) for name, mean in row.items()}
        told = {**cells, "": at(tasks, task).get("metric")}
        groups.setdefault(text(at(tasks, task).get("domain")), {})[task] = told
    columns = {"": Column("metric", drawn="words")}
    columns |= {name: Column(name, 0, False, "heat") for name in scores}
    note = "The fuller the colour, the higher the score; the highest of a row is bold."
    return tables(f"Score by task, {label(setting)}", "task", columns, groups, note)


def _means(found: Evaluation, cells: Mapping[str, object], caption: str, note: str) -> list[Table]:
    columns = {s: Column(label(s)) for s in found.settings}
    rows = {n: {s: at(cells.get(s)).get(n) for s in found.settings} for n in found.methods}
    return tables(caption, "method", columns, {"": rows}, note)


def _others(found: Evaluation) -> list[Table]:
    lenient = "Lenient scores: bullets and trailing text are stripped first"
    later = "Tasks whose adapters the router was never trained on"
    unseen = text(at(found.raw, "later").get("tasks"))
    return [
        *_means(found, at(found.raw, "lenient"), lenient, ""),
        *_means(found, at(found.raw, "later", "cells"), later, unseen),
    ]


def _published(raw: Raw) -> list[Table]:
    told = at(raw, "published")
    names = list(map(text, items(told.get("columns"))))
    rows = {n: dict(zip(names, items(row), strict=False)) for n, row in at(told, "rows").items()}
    note = f"{text(told.get('source'))}: other base models and other rows; compare the order."
    columns = {name: Column(name) for name in names}
    return tables("As published, on larger bases", "method", columns, {"": rows}, note)


ANSWERS = Section(
    "answers",
    "Do the answers get better?",
    "The same prompts, answered by each way of using the pool. A score is the task's own metric, "
    "from 0 to 100, averaged over rows; brackets hold the 95 % interval.",
    blocks,
)
