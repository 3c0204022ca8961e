"""Systems on the same tasks: means over tasks with intervals, and one system against each other."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict

from lab.evaluation.cells import Cell
from lab.evaluation.intervals import bootstrap, paired_difference

MEASURES: dict[str, Callable[[Cell], list[float]]] = {
    "score": lambda cell: cell.strict,
    "lenient": lambda cell: cell.lenient,
    "loss": lambda cell: cell.measures["loss"],
}


def pair_systems(
    found: Mapping[str, Mapping[str, Cell]], names: Sequence[str], *, ours: str
) -> dict[str, dict[str, object]]:
    """Each system's mean over the tasks that all systems have, with its interval, by task, and
    `ours` minus it, paired. `found` are cells by system and task."""
    common = [name for name in names if all(name in cells for cells in found.values())]
    if not common:
        return {}
    table: dict[str, dict[str, object]] = {system: {} for system in found}
    for measure, values in MEASURES.items():
        means = {
            system: [_mean(values(cells[name])) for name in common]
            for system, cells in found.items()
        }
        for system, each in means.items():
            table[system][measure] = {
                **rounded(asdict(bootstrap(each))),
                f"{ours}_minus": rounded(asdict(paired_difference(means[ours], each))),
                "by_task": rounded(dict(zip(common, each, strict=True))),
            }
    return table


def line_of(situation: str, system: str, task: str, cell: Cell) -> str:
    """A cell for the terminal."""
    numbers = f"score {_mean(cell.strict):5.1f}  loss {_mean(cell.measures['loss']):.4f}"
    return f"{situation:8} {task:16} {system:16} {numbers}  {cell.seconds:.0f} s"


def rounded(numbers: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in numbers.items()}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
