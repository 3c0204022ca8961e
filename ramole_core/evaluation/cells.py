"""Cells of an evaluation: the scores of one system on one task in one situation, each in a file.

A cell is written when it is whole, and never written again, so a run that was stopped goes on where
it was, and several processes share the work: who makes a cell first claims it.
"""

import gzip
import hashlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

STALE = 3600.0
"""Seconds after which the claim of a process that never finished is void."""


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
    seconds: float
    measures: dict[str, list[float]] = field(default_factory=dict)
    """What else was measured, by name, one number a row."""


class Cells:
    """The cells of one experiment; its folder is named after everything that decides a number."""

    def __init__(self, work: Path, facts: Mapping[str, object]):
        """`facts` decide the numbers: base, adapters, router, retriever, rows, seeds."""
        self.facts = dict(facts)
        text = json.dumps(facts, sort_keys=True)
        self.folder = work / hashlib.sha256(text.encode()).hexdigest()[:12]
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
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(f".{os.getpid()}.part")
        part.write_text(json.dumps(asdict(cell), indent=1), encoding="utf-8")
        os.replace(part, file)
        self._claimed(file).unlink(missing_ok=True)

    def claim(self, situation: str, system: str, task: str) -> bool:
        """Whether this process may make the cell: it is not there, and nobody else is at it."""
        file = self._file(situation, system, task)
        if file.is_file():
            return False
        file.parent.mkdir(parents=True, exist_ok=True)
        held = self._claimed(file)
        if held.is_file() and time.time() - held.stat().st_mtime > STALE:
            held.unlink(missing_ok=True)
        try:
            held.open("x").close()
        except FileExistsError:
            return False
        return True

    def pack(self, archive: Path) -> None:
        """All cells in one compressed file, with the facts that they hold for."""
        found = {
            "/".join(file.relative_to(self.folder).with_suffix("").parts): json.loads(
                file.read_text(encoding="utf-8")
            )
            for file in sorted(self.folder.glob("*/*/*.json"))
        }
        text = json.dumps({"facts": self.facts, "cells": found}, separators=(",", ":"))
        archive.write_bytes(gzip.compress(text.encode(), mtime=0))

    def unpack(self, archive: Path) -> int:
        """Take over the cells of an archive that holds for the same facts; how many came."""
        if not archive.is_file():
            return 0
        held = json.loads(gzip.decompress(archive.read_bytes()))
        if held["facts"] != json.loads(json.dumps(self.facts)):
            return 0
        count = 0
        for name, cell in held["cells"].items():
            situation, system, task = name.split("/")
            if not self._file(situation, system, task).is_file():
                self.write(situation, system, task, Cell(**cell))
                count += 1
        return count

    def release(self) -> None:
        """Void all claims: no process is at work, so whoever made them is gone."""
        for held in self.folder.glob("*/*/*.claim"):
            held.unlink(missing_ok=True)

    def _file(self, situation: str, system: str, task: str) -> Path:
        return self.folder / situation / system / f"{task}.json"

    def _claimed(self, file: Path) -> Path:
        return file.with_suffix(".claim")
