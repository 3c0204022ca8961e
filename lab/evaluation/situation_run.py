"""Run situations cell by cell, several units at once, and say how long the rest will take."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from time import perf_counter

from lab.evaluation.cells import Cells
from lab.evaluation.questions import Question, Situation, cell_of

AT_ONCE = 32
"""Questions that are asked together, about: whole units, at least one."""
Key = tuple[str, str]
"""Situation and system."""
Told = Callable[[str], None]
"""Called with a line on what is asked now, and how long the rest takes."""


class Pace:
    """Seconds a question, by what is asked; tells how long the rest takes."""

    def __init__(self) -> None:
        self._spent: dict[Key, tuple[int, float]] = {}

    def add(self, situation: str, system: str, count: int, seconds: float) -> None:
        """So many questions took so many seconds."""
        old, before = self._spent.get((situation, system), (0, 0.0))
        self._spent[situation, system] = (old + count, before + seconds)

    def left(self, remaining: Mapping[Key, int]) -> float:
        """Seconds that so many further questions take; 0 before anything was asked. Of a system
        that was not asked yet as many as of the situation's others, else as the mean of all."""
        return sum(count * self._seconds(key) for key, count in remaining.items() if count)

    def _seconds(self, wanted: Key) -> float:
        for alike in (
            {wanted},
            {key for key in self._spent if key[0] == wanted[0]},
            set(self._spent),
        ):
            found = [self._spent[key] for key in alike if key in self._spent]
            if count := sum(n for n, _ in found):
                return sum(seconds for _, seconds in found) / count
        return 0.0


def run_situations(
    situations: Sequence[Situation],
    cells: Cells,
    *,
    systems: Sequence[str],
    told: Told = lambda line: None,
) -> Pace:
    """Make the cells that are not there; those that others are at are left to them."""
    pace = Pace()
    for situation, system, unit, questions in _every(situations, systems):
        if cell := cells.read(situation.place(system), system, unit):
            pace.add(situation.name, system, len(questions), cell.seconds)
    try:
        for situation in situations:
            for system in situation.asked(systems):
                for units in _claimed(situation, system, cells):
                    remaining = count_left(situations, cells, systems=systems)
                    seconds = pace.left(remaining)
                    rest = f", about {seconds / 60:.0f} min" if seconds else ""
                    left = sum(remaining.values())
                    told(f"{situation.name} {system}: {left} questions left{rest}")
                    _make(situation, system, units, cells=cells, pace=pace)
    except BaseException:
        cells.release()
        raise
    return pace


def _make(
    situation: Situation, system: str, units: Sequence[str], *, cells: Cells, pace: Pace
) -> None:
    """Ask the questions of these units together, and write a cell for each."""
    asked = [one for unit in units for one in situation.groups[unit]]
    began = perf_counter()
    found = iter(situation.measure(system, asked))
    spent = perf_counter() - began
    pace.add(situation.name, system, len(asked), spent)
    for unit in units:
        mine = list(islice(found, len(situation.groups[unit])))
        cell = cell_of(mine, spent * len(mine) / len(asked))
        cells.write(situation.place(system), system, unit, cell)


def count_left(
    situations: Sequence[Situation], cells: Cells, *, systems: Sequence[str]
) -> dict[Key, int]:
    """Questions without a cell."""
    left: dict[Key, int] = {}
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
    return {
        one.name: pace.left({(one.name, name): one.count for name in one.asked(systems)}) / 3600
        for one in situations
    }


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
