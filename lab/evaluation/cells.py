"""Cells of an evaluation: the scores of one system on one task in one situation, each in a file.

A cell is written when it is whole, and never written again, so a run that was stopped goes on where
it was, and several processes share the work: who makes a cell first claims it, and a claim ends
with its process. Tables of cells compare systems: every mean has a 95 % bootstrap interval;
differences are paired, over the same rows or tasks.
"""

import fcntl
import gzip
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import IO

import numpy as np

from lab.evaluation.intervals import bootstrap, bootstrap_groups, paired_difference
from lab.harness import digest
from ramole_core.training.card import versions
from ramole_core.whole_file import replacing

MARK = "~"
"""Between a system's name and the digest of its own facts, in a folder's name."""


@dataclass(frozen=True)
class Cell:
    """What the answers of one system to the rows of one task are worth, in order.

    The answers themselves stay out: some repeat their rows, which belong to others.
    """

    strict: list[float]
    """By the task's metric, 0 to 100; empty where nothing is scored."""
    lenient: list[float]
    adapters: list[list[str]]
    """Those that were mixed, best first."""
    seconds: float = 0.0
    measures: dict[str, list[float]] = field(default_factory=dict)
    """What else was measured, by name, one number a row."""


Facts = Mapping[str, object]
"""What decides a number, by name."""


class Cells:
    """The cells of one experiment; its folder is named after what decides every number, and each
    system's folders after what decides that system's alone. So a method that comes later leaves
    the cells of the others as they are."""

    def __init__(self, work: Path, facts: Facts, own: Callable[[str], Facts] = lambda system: {}):
        """`facts` decide all numbers: base, adapters, retriever, rows, seeds; `own(system)` those
        of one system: its options and trained weights, read once."""
        self.facts = dict(facts)
        self.own = cache(own)
        self._held: dict[Path, IO] = {}
        self.folder = work / digest(facts, 12)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "facts.json").write_text(json.dumps(facts, indent=1, sort_keys=True))

    def has(self, situation: str, system: str, task: str) -> bool:
        """Whether the cell was made."""
        return self._file(situation, system, task).is_file()

    def read(self, situation: str, system: str, task: str) -> Cell | None:
        """The cell; None where it was not made yet."""
        file = self._file(situation, system, task)
        return Cell(**json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else None

    def write(self, situation: str, system: str, task: str, cell: Cell) -> None:
        """Keep a whole cell."""
        file = self._file(situation, system, task)
        with replacing(file) as part:
            part.write_text(json.dumps(asdict(cell), indent=1), encoding="utf-8")
        self._end_claim(file)

    def claim(self, situation: str, system: str, task: str) -> bool:
        """Whether the caller may make the cell: it is not there, and nobody else is at it. The
        kernel drops the claim of a process that ends, however it ends."""
        file = self._file(situation, system, task)
        if file.is_file():
            return False
        file.parent.mkdir(parents=True, exist_ok=True)
        held = file.with_suffix(".claim").open("a")
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            held.close()
            return False
        self._held[file] = held
        if file.is_file():  # written since the first look
            self._end_claim(file)
        return file in self._held

    def pack(self, archive: Path) -> None:
        """All cells in one compressed file, with the facts that they hold for."""
        found, systems = {}, {}
        for file in sorted(self.folder.glob("*/*/*.json")):
            system = file.parent.name.partition(MARK)[0]
            if file.parent.name != self._folder(system):
                continue
            situation = file.parent.parent.name
            found[f"{situation}/{system}/{file.stem}"] = json.loads(file.read_text("utf-8"))
            systems[system] = dict(self.own(system))
        held = {"facts": self.facts, "systems": systems, "cells": found}
        text = json.dumps(held, separators=(",", ":"), sort_keys=True)
        archive.write_bytes(gzip.compress(text.encode(), mtime=0))

    def unpack(self, archive: Path) -> int:
        """Take over the cells of an archive that hold for the same facts; how many came."""
        if not archive.is_file():
            return 0
        held = json.loads(gzip.decompress(archive.read_bytes()))
        if held["facts"] != json.loads(json.dumps(self.facts)):
            return 0
        known = {
            system
            for system, facts in held.get("systems", {}).items()
            if facts == json.loads(json.dumps(dict(self.own(system))))
        }
        count = 0
        for name, cell in held["cells"].items():
            situation, system, task = name.split("/")
            if system in known and not self._file(situation, system, task).is_file():
                self.write(situation, system, task, Cell(**cell))
                count += 1
        return count

    def release(self) -> None:
        """Void this object's claims; their files stay, for others may be about to lock them."""
        while self._held:
            self._held.popitem()[1].close()

    def _file(self, situation: str, system: str, task: str) -> Path:
        return self.folder / situation / self._folder(system) / f"{task}.json"

    def _folder(self, system: str) -> str:
        own = self.own(system)
        return f"{system}{MARK}{digest(own, 8)}" if own else system

    def _end_claim(self, file: Path) -> None:
        """Remove the claim of a cell that is written, and only then unlock it."""
        file.with_suffix(".claim").unlink(missing_ok=True)
        if held := self._held.pop(file, None):
            held.close()


MEASURES: dict[str, Callable[[Cell], list[float]]] = {
    "score": lambda cell: cell.strict,
    "lenient": lambda cell: cell.lenient,
    "loss": lambda cell: cell.measures["loss"],
}
MEASURED = "score: the task's metric over greedy answers, 0 to 100; loss: nats a token"
"""What `measure_task` and `pair_systems` tell."""
Make = Callable[[Sequence[str]], Iterable[tuple[str, Cell]]]
"""Measures some tasks; yields each task's name and cell as it comes."""
Found = dict[str, Cell]
"""A system's cells by task."""


def open_cells(work: Path, **facts: object) -> Cells:
    """The cells that these facts decide, and the versions of the packages."""
    return Cells(work, facts | {"versions": versions()})


def fill(cells: Cells, situation: str, system: str, names: Sequence[str], make: Make) -> Found:
    """The system's cells of these tasks; those that are missing are made, kept and printed."""
    missing = [name for name in names if not cells.has(situation, system, name)]
    began = time.perf_counter()
    for name, cell in make(missing) if missing else ():
        ended = time.perf_counter()
        cell, began = replace(cell, seconds=round(ended - began, 1)), ended
        cells.write(situation, system, name, cell)
        print(line_of(situation, system, name, cell), flush=True)
    return read_system(cells, situation, system, names)


def read_system(cells: Cells, situation: str, system: str, names: Sequence[str]) -> Found:
    """The system's cells of these tasks, as far as they are made."""
    found = {name: cells.read(situation, system, name) for name in names}
    return {name: cell for name, cell in found.items() if cell is not None}


def measured(found: Mapping[str, Cell], measure: str) -> list[float]:
    """One measure of every row, task after task."""
    return [value for cell in found.values() for value in MEASURES[measure](cell)]


def owners(found: Mapping[str, Cell], measure: str) -> list[str]:
    """The task of each of these rows."""
    return [name for name, cell in found.items() for _ in MEASURES[measure](cell)]


def compare_rows(
    ours: Sequence[float],
    theirs: Sequence[float],
    tasks: Sequence[str],
    *,
    rival: str,
    digits: int = 4,
) -> dict[str, object]:
    """A row of a table: the mean with its interval over rows, and the difference to the rival on
    the same rows with its interval over tasks; `tasks` are the rows' own."""
    gap = bootstrap_groups(np.subtract(ours, theirs).tolist(), tasks)
    against = {"rival": rival, **gap.rounded(digits)}
    return {**bootstrap(ours).rounded(digits), "against": against}


def pair_systems(
    found: Mapping[str, Mapping[str, Cell]], names: Sequence[str], *, ours: str
) -> dict[str, dict[str, object]]:
    """Each system's mean over the tasks that all systems have, with its interval, by task, and
    `ours` minus it, paired. `found` are cells by system and task."""
    common = [name for name in names if all(name in cells for cells in found.values())]
    if not common:
        return {}
    table: dict[str, dict[str, object]] = {system: {} for system in found}
    for measure, values in MEASURES.items():
        means = {
            system: [fmean(values(cells[name])) for name in common]
            for system, cells in found.items()
        }
        for system, each in means.items():
            by_task = zip(common, each, strict=True)
            table[system][measure] = {
                **bootstrap(each).rounded(),
                f"{ours}_minus": paired_difference(means[ours], each).rounded(),
                "by_task": {name: round(mean, 4) for name, mean in by_task},
            }
    return table


def line_of(situation: str, system: str, task: str, cell: Cell) -> str:
    """A cell for the terminal."""
    measures = {"score": cell.strict, **cell.measures}
    means = "  ".join(f"{name} {fmean(rows):.4g}" for name, rows in measures.items() if rows)
    return f"{situation:12} {task:16} {system:24} {means}  {cell.seconds:.0f} s"
