"""Run situations cell by cell, several units at once, and say how long the rest will take."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from time import perf_counter

from lab.evaluation.cells import Cells
from lab.evaluation.questions import Question, Situation, cell_of

AT_ONCE = 32
"""Questions that are asked together, about: whole units, at least one."""


@dataclass
class Pace:
    """Seconds a question, by what is asked; tells how long the rest takes."""

    spent: dict[tuple[str, str], tuple[int, float]] = field(default_factory=dict)
    """Questions and seconds by (situation, system)."""

    def add(self, situation: str, system: str, count: int, seconds: float) -> None:
        """So many questions took so many seconds."""
        old, before = self.spent.get((situation, system), (0, 0.0))
        self.spent[situation, system] = (old + count, before + seconds)

    def seconds(self, situation: str, system: str) -> float | None:
        """A question's; those of the situation's other systems where this one was not asked yet,
        else the mean of all. None before anything was asked."""
        for alike in (
            {(situation, system)},
            {key for key in self.spent if key[0] == situation},
            set(self.spent),
        ):
            found = [self.spent[key] for key in alike if key in self.spent]
            if count := sum(n for n, _ in found):
                return sum(t for _, t in found) / count
        return None

    def left(self, remaining: Mapping[tuple[str, str], int]) -> float:
        """Seconds that so many further questions take; 0 before anything was asked."""
        return sum(count * (self.seconds(*key) or 0.0) for key, count in remaining.items() if count)

    def table(self) -> dict[str, dict[str, float]]:
        """Seconds a question, by situation and system; for a file."""
        found: dict[str, dict[str, float]] = {}
        for (situation, system), (count, seconds) in sorted(self.spent.items()):
            found.setdefault(situation, {})[system] = round(seconds / max(1, count), 3)
        return found


Told = Callable[[str], None]
"""Called with a line on what is asked now, and how long the rest takes."""


def run_situations(
    situations: Sequence[Situation],
    cells: Cells,
    *,
    systems: Sequence[str],
    told: Told = lambda line: None,
) -> Pace:
    """Make the cells that are not there; those that others are at are left to them."""
    pace = read_pace(situations, cells, systems=systems)
    for situation in situations:
        for system in situation.asked(systems):
            for units in _claimed(situation, system, cells):
                asked = [one for unit in units for one in situation.groups[unit]]
                remaining = count_left(situations, cells, systems=systems)
                told(_line(situation.name, system, pace, remaining))
                began = perf_counter()
                found = iter(situation.measure(system, asked))
                spent = perf_counter() - began
                pace.add(situation.name, system, len(asked), spent)
                for unit in units:
                    mine = list(islice(found, len(situation.groups[unit])))
                    cell = cell_of(mine, spent * len(mine) / len(asked))
                    cells.write(situation.place(system), system, unit, cell)
    return pace


def read_pace(situations: Sequence[Situation], cells: Cells, *, systems: Sequence[str]) -> Pace:
    """What the cells that are there took."""
    pace = Pace()
    for situation, system, unit, questions in _every(situations, systems):
        cell = cells.read(situation.place(system), system, unit)
        if cell is not None:
            pace.add(situation.name, system, len(questions), cell.seconds)
    return pace


def count_left(
    situations: Sequence[Situation], cells: Cells, *, systems: Sequence[str]
) -> dict[tuple[str, str], int]:
    """Questions without a cell, by (situation, system)."""
    left: dict[tuple[str, str], int] = {}
    seen = set()
    for situation, system, unit, questions in _every(situations, systems):
        cell = situation.place(system), system, unit
        if cell not in seen and not cells.has(*cell):
            key = (situation.name, system)
            left[key] = left.get(key, 0) + len(questions)
        seen.add(cell)
    return left


def estimate_whole(
    situations: Sequence[Situation], pace: Pace, *, systems: Sequence[str]
) -> dict[str, float]:
    """Hours that each of the situations takes from the start, at this pace."""
    hours: dict[str, float] = {}
    for situation in situations:
        wanted = {(situation.name, name): situation.count for name in situation.asked(systems)}
        hours[situation.name] = pace.left(wanted) / 3600
    return hours


def _every(
    situations: Sequence[Situation], systems: Sequence[str]
) -> Iterator[tuple[Situation, str, str, tuple[Question, ...]]]:
    for situation in situations:
        for system in situation.asked(systems):
            for unit, questions in situation.groups.items():
                yield situation, system, unit, questions


def _claimed(situation: Situation, system: str, cells: Cells) -> Iterator[list[str]]:
    """Units that this process may make, as many as are asked together."""
    units: list[str] = []
    count = 0
    for unit, questions in situation.groups.items():
        if not cells.claim(situation.place(system), system, unit):
            continue
        units.append(unit)
        count += len(questions)
        if count >= AT_ONCE:
            yield units
            units, count = [], 0
    if units:
        yield units


def _line(situation: str, system: str, pace: Pace, remaining: Mapping[tuple[str, str], int]) -> str:
    count = sum(remaining.values())
    seconds = pace.left(remaining)
    rest = f", about {seconds / 60:.0f} min" if seconds else ""
    return f"{situation} {system}: {count} questions left{rest}"
