"""The whole benchmark: the parts one after another, into one JSON file."""

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from lab.benchmarks.parts import OPTIONAL, PARTS
from lab.benchmarks.ratios import measure_ratios
from lab.benchmarks.record import Record, Tell, measure_cells
from lab.benchmarks.sizes import Sizes
from lab.benchmarks.stage import Stage
from ramole_core.errors import RamoleError
from ramole_core.settings import Settings


def choose_parts(only: Sequence[str]) -> list[str]:
    """The parts named, in the order they run in; where none is, all but the optional ones. Raises
    RamoleError."""
    for name in only:
        if name not in PARTS:
            raise RamoleError(f"--only {name} is no part; choose from {', '.join(PARTS)}.")
    return [name for name in PARTS if name in only or not (only or name in OPTIONAL)]


def run_benchmark(
    settings: Settings,
    *,
    out: Path,
    work: Path,
    sizes: Sizes,
    only: Sequence[str],
    command: str,
    anew: bool,
    tell: Tell,
) -> dict[str, object]:
    """Measure the parts, write `out` after every repetition, and return what it holds.

    What `out` has already from this machine, commit and setup is not measured again, unless
    `anew`. Adapters and indexes are made under `work`, and stay there.
    """
    wanted = choose_parts(only)
    with Stage(settings, work=work, sizes=sizes, tell=tell) as stage:
        record = Record(out, machine=stage.describe(), anew=anew)
        for name in wanted:
            began = time.perf_counter()
            record.begin(name, asdict(sizes))
            for cells in PARTS[name](stage, record):
                measure_cells(
                    cells, part=name, repetitions=sizes.repetitions, record=record, tell=tell
                )
            spent = record.parts[name]["notes"].get("part_seconds", 0.0)
            spent += time.perf_counter() - began
            record.note(name, "part_seconds", round(spent, 1))
    found = {"command": command, "ratios": measure_ratios(record.parts)}
    record.write(**found)
    return {**found, "parts": record.parts}
