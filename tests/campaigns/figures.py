"""What a campaign found: counts of what happened, and of what must never happen."""

import json
import os
import platform
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from ramole_core.whole_file import replacing

TOLD = 20
"""Failures that are told one by one."""


@dataclass
class Figures:
    """Counts by name, and measures; `promised` are those that must be 0."""

    promised: tuple[str, ...]
    counts: Counter[str] = field(default_factory=Counter)
    measures: dict[str, object] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def failed(self, name: str, what: str) -> None:
        """Counts what must never happen, and keeps a sentence on it."""
        assert name in self.promised, name
        self.counts[name] += 1
        self.failures.append(f"{name}: {what}")

    @property
    def sound(self) -> bool:
        return not self.failures

    def record(self) -> dict[str, object]:
        """For JSON: what must be 0 first."""
        promised = {name: self.counts[name] for name in self.promised}
        others = {name: n for name, n in sorted(self.counts.items()) if name not in promised}
        return {"must_be_0": promised, "happened": others, **self.measures}


def write_section(path: Path, name: str, section: dict[str, object]) -> None:
    """Puts the section into the file in the place of an earlier one."""
    there = json.loads(path.read_text()) if path.exists() else {}
    there[name] = section
    with replacing(path) as part:
        part.write_text(json.dumps(there, indent=1) + "\n")


def machine_words() -> dict[str, object]:
    """The machine and the day, as the other files of results/ say them."""
    return {
        "machine": f"{len(os.sched_getaffinity(0))} cores, {platform.machine()}",
        "system": platform.platform(),
        "load_average": round(os.getloadavg()[1], 1),
        "date": datetime.now(UTC).date().isoformat(),
    }
