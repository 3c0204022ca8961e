"""The runs that can be looked at: the answer in Ask, and those that were recorded."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..charts.run import Run
from ..parts.link import link_to, link_to_recorded
from .layout import FROM_ASK

ALONE = 0.9
"""An adapter with this share of all contributions does the answer alone."""
TAB = "inspect"
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
    """The runs as files of another tab."""

    files: Sequence[Path]
    """Recorded runs."""
    read: Callable[[Path], Run]
    write: Callable[..., tuple[Path, Path]]
    """(npz, json) of a run's trace; takes `facts` of what answered."""
    kept: dict[Path, Run] = field(default_factory=dict)
    """Those that were read already: a few, and small."""

    def choices(self, asked: Run | None) -> list[tuple[str, int]]:
        """Names of all runs, each with its number."""
        live = [] if asked is None else [(_named(asked), ASKED)]
        return [
            *live,
            *((f"recorded: {self.recorded(n).title}", n) for n in range(len(self.files))),
        ]

    def recorded(self, n: int) -> Run:
        """Recorded run n."""
        path = self.files[n]
        if path not in self.kept:
            self.kept[path] = self.read(path)
        return self.kept[path]

    def link(self, source: int, asked: Run | None) -> str:
        """The end of an address that shows this run; empty where there is none."""
        if (run := self.run(source, asked)) is None:
            return ""
        titles = {self.recorded(n).title: path.stem for n, path in enumerate(self.files)}
        if run.title:
            return link_to_recorded(titles[run.title], tab=TAB) if run.title in titles else ""
        return link_to(run.request, beside=run.beside is not None, tab=TAB)

    def start(self) -> int:
        """The recorded run to begin with: the first one in which adapters share the work, so that
        there is something to see; the first of all, where there is none."""
        for n in range(len(self.files)):
            shares = self.recorded(n).shares
            if shares.size and shares.mean(0).max() < ALONE:
                return n
        return 0

    def run(self, source: int, asked: Run | None) -> Run | None:
        """The run of this number; None where there is none."""
        if source == ASKED:
            return asked
        return self.recorded(source) if 0 <= source < len(self.files) else None


def _named(asked: Run) -> str:
    return f"{FROM_ASK} (recorded: {asked.title})" if asked.title else FROM_ASK
