"""Interleaved repetitions: every cell once, then every cell again, so that drift hits all alike."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from lab.benchmarks.record import Measured, Record

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
