"""The JSON file that speeds go into, whole after each repetition, so that a run resumes.

    parts: name -> {machine, setup, notes, cells: name -> {facts, repetitions, summary}}

Numbers are compared within a part only: one machine, one commit, one setup. Repetitions are
interleaved: every cell once, then every cell again, so that drift hits all alike.
"""

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ramole_core.errors import RamoleError
from ramole_core.whole_file import replacing

SAME = (
    "cpu", "cores", "threads", "card", "device", "dtype", "quantization", "base_checksum", "commit",
)  # fmt: skip
"""What of the machine must be equal for two repetitions to stand in one cell."""
Measured = dict[str, float]
"""One repetition: quantity -> value; the unit is the name's end (`_per_second`, `_seconds`)."""
Tell = Callable[[str, float], None]
"""Called with what runs now and the fraction done."""


@dataclass(frozen=True)
class Cell:
    """One thing to measure, under one name of a part."""

    name: str
    measure: Callable[[], Measured]
    warm_up: Callable[[], object] = lambda: None
    """Called once, untimed, before the first repetition: first calls allocate and compile."""
    facts: Mapping[str, object] = field(default_factory=dict)
    repetitions: int | None = None
    """None: as many as the part's."""


class Record:
    """What has been measured so far; every change is written at once."""

    def __init__(self, path: Path, *, machine: Mapping[str, object], anew: bool = False):
        """`anew`: what is there already is measured again. Raises RamoleError where the file is
        not such a record."""
        self._path, self._machine, self._anew = path, dict(machine), anew
        self._begun: set[str] = set()
        self.parts = read_parts(path)

    def begin(self, part: str, setup: Mapping[str, object]) -> None:
        """Start a part, or go on with it where machine, commit and setup are the same as before."""
        if part in self._begun:
            return
        self._begun.add(part)
        fresh = {"machine": self._machine, "setup": dict(setup), "notes": {}, "cells": {}}
        fresh = json.loads(json.dumps(fresh))
        old = self.parts.get(part)
        if old is None or self._anew or _signature(old) != _signature(fresh):
            self.parts[part] = fresh

    def count(self, part: str, cell: str) -> int:
        """Repetitions that the cell has."""
        found = self.parts[part]["cells"].get(cell)
        return len(found["repetitions"]) if found else 0

    def add(self, part: str, cell: str, facts: Mapping[str, object], measured: Measured) -> None:
        """Write one repetition more."""
        fresh = {"facts": dict(facts), "repetitions": []}
        there = self.parts[part]["cells"].setdefault(cell, fresh)
        there["repetitions"].append({name: _short(value) for name, value in measured.items()})
        there["summary"] = summarise(there["repetitions"])
        self.write()

    def note(self, part: str, name: str, value: object) -> None:
        """Write a fact about a part that is known only while it runs."""
        self.parts[part]["notes"][name] = value
        self.write()

    def write(self, **beside: object) -> None:
        """Write the file; `beside` stands before the parts."""
        text = json.dumps({**beside, "parts": self.parts}, indent=1, ensure_ascii=False)
        with replacing(self._path) as part:
            part.write_text(text + "\n", encoding="utf-8")


def measure_cells(
    cells: Sequence[Cell], *, part: str, repetitions: int, record: Record, tell: Tell
) -> None:
    """Measure what the record lacks; each repetition begins with another cell, so that none is
    always the one behind the same neighbour."""
    wanted = {cell.name: cell.repetitions or repetitions for cell in cells}
    missing = [cell for cell in cells if record.count(part, cell.name) < wanted[cell.name]]
    for cell in missing:
        tell(f"{part}: warming up {cell.name}", 0.0)
        cell.warm_up()
    rounds = max(wanted.values(), default=0)
    for turn in range(rounds):
        start = turn % max(len(missing), 1)
        for number, cell in enumerate([*missing[start:], *missing[:start]]):
            if not record.count(part, cell.name) <= turn < wanted[cell.name]:
                continue
            done = (turn + number / len(missing)) / rounds
            tell(f"{part}: {cell.name}, {turn + 1} of {wanted[cell.name]}", done)
            record.add(part, cell.name, cell.facts, cell.measure())


def read_parts(path: Path) -> dict:
    """The parts of a record; raises RamoleError where the file is none."""
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))["parts"])
    except (ValueError, KeyError, TypeError):
        raise RamoleError(
            f"{path} is not a record of speeds; move it away, or write to another file."
        ) from None


def summarise(repetitions: Sequence[Measured]) -> dict[str, dict[str, float]]:
    """Median, smallest and largest of each quantity."""
    found = {}
    for name in repetitions[0]:
        values = [row[name] for row in repetitions if name in row]
        middle = _short(statistics.median(values))
        found[name] = {"median": middle, "min": min(values), "max": max(values)}
    return found


def _short(value: float) -> float:
    return float(f"{value:.5g}")


def _signature(part: Mapping) -> str:
    machine = {name: part["machine"].get(name) for name in SAME}
    return json.dumps([machine, part["setup"]], sort_keys=True)
