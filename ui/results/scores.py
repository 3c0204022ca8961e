"""An evaluation as plain data: methods x settings.

The system as it ships is in `results/evaluation_dev.json` (rows) and `situations_dev.json` (chats
and whatever else is no row of a task), on dev rows; `evaluation.json` has the test rows,
which are asked once, of whatever shipped then.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from .files import load, made_of, unreadable
from .tables import Made, Unmeasured
from .values import Raw, Span, at, spans_of, text

SHIPPED, FURTHER, TESTED = "evaluation_dev.json", "situations_dev.json", "evaluation.json"
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
        """One sentence on what the retriever was tuned on; empty where the file does not say."""
        known, every = self.raw.get("retriever_tuned_on"), len(at(self.raw, "tasks"))
        if not isinstance(known, list):
            return ""
        share = "all" if len(known) == every else f"{len(known)} of"
        return f"The retriever was tuned on other rows of {share} these {every} tasks."

    def best(self, setting: str) -> str | None:
        """The method that mixes best there."""
        return next((n for n, span in self.cells.get(setting, {}).items() if span.best), None)


def label(setting: str) -> str:
    """The setting's short name."""
    return LABELS.get(setting, setting)


def evaluation(folder: Path) -> Evaluation | Unmeasured:
    """The evaluation of the shipped system, else of the test."""
    return read_evaluation(folder, SHIPPED if (folder / SHIPPED).is_file() else TESTED)


def read_evaluation(folder: Path, name: str) -> Evaluation | Unmeasured:
    """The evaluation in a file, else what is said in its place."""
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
