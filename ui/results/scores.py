"""An evaluation as plain data: methods x settings.

`results/test2.json` has the test rows, run once, by the system that ships; `evaluation_dev.json`
the dev rows of all choices, and `situations_dev.json` situations beyond the rows of a task.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from ramole_core import DEFAULT_METHOD

from .files import load, made_of, unreadable
from .tables import Column, Made, Unmeasured, spoken
from .values import Raw, Span, at, items, span_of, spans_of, text

TESTED, ON_DEV, FURTHER = "test2.json", "evaluation_dev.json", "situations_dev.json"
SEVERAL = "test2_parts.json"
"""Test rows, two and three in one prompt."""
NOT_MIXING = ("base", "perfect", "selection")
"""Rows that use one adapter or none."""
LABELS = {"iid": "its adapter is there", "ood": "its adapter is hidden"}
"""In plain words; the papers say IID and OOD."""


@dataclass(frozen=True)
class Evaluation:
    raw: Raw
    made: Made
    methods: dict[str, str]
    """In the order of the rows, each with one line on what it is."""
    settings: dict[str, str]
    """What each is."""
    cells: dict[str, dict[str, Span]]
    """By setting, then by method; the best way of mixing is marked."""

    @property
    def tuned(self) -> str:
        """One sentence on what the retriever was tuned on; empty where the file lacks it."""
        known, every = self.raw.get("retriever_tuned_on"), len(at(self.raw, "tasks"))
        if not isinstance(known, list):
            return ""
        share = "all" if len(known) == every else f"{len(known)} of"
        return f"The retriever was tuned on other rows of {share} these {every} tasks."

    def best(self, setting: str) -> str | None:
        """The method that mixes best there."""
        return next((n for n, span in self.cells.get(setting, {}).items() if span.best), None)

    def by_tasks(self, *rivals: str) -> str:
        """One sentence: how far these are ahead of the default method in each setting, with the
        interval of drawing tasks again; empty where that was not measured."""
        columns, rows = self.compared()
        gaps = {key: one for key, one in columns.items() if one.signed}
        said = []
        for name in rivals:
            row = rows.get(name, {})
            spans = [(span, one) for key, one in gaps.items() if (span := row.get(key))]
            if len(spans) == len(gaps):
                said.append(f"`{name}` {', '.join(' '.join(spoken(*both)) for both in spans)}")
        if not said:
            return ""
        head = f"Differences to `{DEFAULT_METHOD}`, with intervals over tasks"
        return f"{head}: {'; '.join(said)}."

    def compared(self) -> tuple[dict[str, Column], dict[str, dict[str, Span | None]]]:
        """(columns, rows by method): the score in each setting, and its difference to that of the
        default method, with the interval of drawing tasks again."""
        columns: dict[str, Column] = {}
        rows: dict[str, dict[str, Span | None]] = {name: {} for name in self.methods}
        for setting, cells in self.cells.items():
            gap, ahead = f"{setting}, ahead", self.ahead(setting)
            gaps = {n: Span(-s.mean, -s.ends[1], -s.ends[0]) for n, s in ahead.items()}
            columns[setting] = Column(label(setting), drawn="from 0")
            columns[gap] = Column(f"minus {DEFAULT_METHOD}", 1, True, "around 0")
            for name, row in rows.items():
                row |= {setting: cells.get(name), gap: gaps.get(name)}
        return columns, rows

    def ahead(self, setting: str, *, of: str = DEFAULT_METHOD) -> dict[str, Span]:
        """How far a method is ahead of each of its rivals there, with the interval over tasks."""
        found = {}
        for one in map(at, items(at(self.raw, "differences").get(setting))):
            ends = {"low": one.get("task_low"), "high": one.get("task_high")}
            span = span_of({"mean": one.get("mean"), **ends})
            if one.get("method") == of and span is not None and span.low is not None:
                found[text(one.get("rival"))] = span
        return found


def label(setting: str) -> str:
    """The setting's short name."""
    return LABELS.get(setting, setting)


def evaluation(folder: Path) -> Evaluation | Unmeasured:
    """The evaluation on test rows, else on dev rows."""
    one_there = (folder / TESTED).is_file() or not (folder / ON_DEV).is_file()
    return read_evaluation(folder, TESTED if one_there else ON_DEV)


def read_evaluation(folder: Path, name: str) -> Evaluation | Unmeasured:
    """The evaluation in a file, else the sentence in its place."""
    raw = load(folder, name)
    return raw if isinstance(raw, Unmeasured) else evaluation_of(raw, name) or unreadable(name)


def evaluation_of(raw: Raw, name: str = TESTED) -> Evaluation | None:
    """None where no cell can be read."""
    spans = {setting: spans_of(row) for setting, row in at(raw, "cells").items()}
    spans = {setting: row for setting, row in spans.items() if row}
    told = {name: text(words) for name, words in at(raw, "methods").items()}
    told |= {name: "" for row in spans.values() for name in row if name not in told}
    methods = {n: words for n, words in told.items() if any(n in row for row in spans.values())}
    said = at(raw, "settings")
    settings = {setting: text(said.get(setting)) for setting in [*said, *spans] if setting in spans}
    cells = {setting: _marked(spans[setting], methods) for setting in settings}
    return Evaluation(raw, made_of(raw, name), methods, settings, cells) if cells else None


def _marked(spans: dict[str, Span], methods: dict[str, str]) -> dict[str, Span]:
    """In the order of the methods, the best way of mixing marked."""
    mixing = {name: span.mean for name, span in spans.items() if name not in NOT_MIXING}
    best = max(mixing, key=mixing.__getitem__) if mixing else None
    return {n: replace(spans[n], best=n == best) for n in methods if n in spans}
