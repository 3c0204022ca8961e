"""Questions of a situation: what is asked, what should answer, and over which unit intervals run.

A situation beyond the rows of one task (`situations.py`) is a set of questions by unit (a task, a
pair of tasks, a family of prompts, an adapter) and a way to measure a system on some of them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice

from lab.evaluation.cells import Cell
from lab.evaluation.systems import ALONE, BOUNDS, ORDER
from lab.harness import digest


@dataclass(frozen=True)
class Question:
    """One thing that every system is asked."""

    prompt: str
    right: tuple[str | None, ...]
    """What should answer each turn, the last one the prompt's: an adapter, or None for the base."""
    history: tuple[tuple[str, str], ...] = ()
    """Earlier turns: (user, assistant)."""
    target: str = ""
    """Empty: only who answers counts."""
    metric: str = ""
    excluded: tuple[str, ...] = ()
    """Adapters that must not be found."""
    owner: str | None = None
    """Whose uploads may be found beside the shared pool."""

    @property
    def adapters(self) -> tuple[str, ...]:
        """Those that should answer."""
        return tuple(name for name in self.right if name is not None)


@dataclass(frozen=True)
class Found:
    """What one system made of one question."""

    adapters: tuple[str, ...]
    """Those that were mixed, best first."""
    measures: Mapping[str, float]
    """By name; each question of a situation has the same ones under a system."""


def cell_of(found: Sequence[Found], seconds: float) -> Cell:
    """What came of the questions of one unit; only measures that all have."""
    names = [name for name in found[0].measures if all(name in one.measures for one in found)]
    measures = {name: [round(one.measures[name], 4) for one in found] for name in names}
    strict, mild = measures.pop("score", []), measures.pop("lenient", [])
    return Cell(strict, mild, [list(one.adapters) for one in found], round(seconds, 3), measures)


Measure = Callable[[str, Sequence[Question]], list[Found]]
"""A system's name and some questions; one `Found` each, in order."""


@dataclass(frozen=True)
class Situation:
    """A situation as it is run."""

    name: str
    what: str
    """One line on what is asked."""
    unit: str
    """What an interval draws again: `task`, `pair`, `family`, `adapter`."""
    systems: tuple[str, ...]
    """Those that can differ here, in the order they run."""
    groups: Mapping[str, tuple[Question, ...]]
    """By unit."""
    measure: Measure
    parts: Mapping[str, str] = field(default_factory=dict)
    """Part of a unit, where some units are told apart in the tables."""
    shares_alone: bool = False
    """Whether the units are the tasks of the row situations, with the same rows: then systems that
    do not retrieve have their cells already."""
    own_rows: bool = False
    """Whether it is a row situation itself; the facts of its cells say which rows."""

    def place(self, system: str) -> str:
        """Where the system's cells lie: other questions have other cells."""
        if (self.shares_alone or self.own_rows) and system in ALONE:
            return "alone"
        return self.name if self.own_rows else f"{self.name}-{self.digest}"

    @property
    def digest(self) -> str:
        """Of all questions."""
        said = {unit: [asdict(one) for one in group] for unit, group in self.groups.items()}
        return digest(said, 8)

    @property
    def count(self) -> int:
        """Questions in all."""
        return sum(map(len, self.groups.values()))

    def cut(self, count: int) -> "Situation":
        """The first `count` units of it, `count` questions of each: a trial."""
        first = dict(islice(self.groups.items(), count))
        groups = {unit: questions[:count] for unit, questions in first.items()}
        what = f"{self.what}; of these the first {len(groups)}, {count} questions of each at most"
        return replace(self, what=what, groups=groups, shares_alone=False)

    def asked(self, wanted: Sequence[str]) -> list[str]:
        """Of the wanted systems, those that can differ here; one that nobody foresaw can."""
        known = {*ORDER, *BOUNDS}
        return [name for name in wanted if name in self.systems or name not in known]
