"""The runs that can be looked at: the answer in Ask, and those that were recorded."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..charts.run import Run
from .layout import FROM_ASK

ASKED = -1
"""In place of a recorded run's number: the answer in Ask."""


@dataclass(frozen=True)
class Inspected:
    """The run that is shown."""

    run: Run | None
    name: str
    """Of the run, for the browser."""
    source: int
    """`ASKED`, or the number of a recorded run."""
    asked: Run | None
    """What Ask had then; another answer there is shown when the tab is opened again."""


@dataclass(frozen=True)
class Sources:
    """What another tab knows of runs as files."""

    files: Sequence[Path]
    """Recorded runs."""
    read: Callable[[Path], Run]
    write: Callable[..., tuple[Path, Path]]
    """(npz, json) of a run's trace; takes `facts` of what answered."""
    titles: dict[Path, str] = field(default_factory=dict)
    """Those that were read already."""

    def choices(self, asked: Run | None) -> list[tuple[str, int]]:
        """Names of all runs, each with its number."""
        for path in self.files:
            if path not in self.titles:
                self.titles[path] = self.read(path).title
        live = [] if asked is None else [(_named(asked), ASKED)]
        return [*live, *((f"recorded: {self.titles[p]}", n) for n, p in enumerate(self.files))]

    def run(self, source: int, asked: Run | None) -> Run | None:
        """The run of this number; None where there is none."""
        if source == ASKED:
            return asked
        return self.read(self.files[source]) if 0 <= source < len(self.files) else None


def _named(asked: Run) -> str:
    return f"{FROM_ASK} (recorded: {asked.title})" if asked.title else FROM_ASK
