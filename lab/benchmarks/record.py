"""The JSON file that measurements go into, whole after each repetition, so that a run resumes.

    parts: name -> {machine, setup, notes, cells: name -> {facts, repetitions, summary}}

Numbers are compared within a part only: one machine, one commit, one setup.
"""

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from ramole_core.errors import RamoleError
from ramole_core.whole_file import replacing

SAME = (
    "cpu", "cores", "threads", "card", "device", "dtype", "quantization", "base_checksum", "commit",
)  # fmt: skip
"""What of the machine must be equal for two repetitions to stand in one cell."""

Measured = dict[str, float]
"""One repetition: quantity -> value; the unit is the name's end (`_per_second`, `_seconds`)."""


class Record:
    """What has been measured so far; every change is written at once."""

    def __init__(self, path: Path, *, machine: Mapping[str, object], anew: bool = False):
        """`anew`: what is there already is measured again. Raises RamoleError where the file is
        not such a record."""
        self._path = path
        self._machine = dict(machine)
        self._anew = anew
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
        there = self.parts[part]["cells"].setdefault(
            cell, {"facts": dict(facts), "repetitions": []}
        )
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
        found[name] = {
            "median": _short(statistics.median(values)),
            "min": min(values),
            "max": max(values),
        }
    return found


def _short(value: float) -> float:
    return float(f"{value:.5g}")


def _signature(part: Mapping) -> str:
    machine = {name: part["machine"].get(name) for name in SAME}
    return json.dumps([machine, part["setup"]], sort_keys=True)
