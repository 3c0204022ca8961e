"""RouterLoRA's own claim: gates of the paper's recipe and others, beside equal and random weights.

    python -m lab router_claim --data DATA

Gates are trained on a share of the pool's tasks until their dev loss stops, one for each seed; then
others of the first seed: with the row's own adapter as a target of every gate, on two tasks in one
prompt, and on all tasks with no adapter hidden. Each answers dev rows freely, tasks that it saw
apart from those that it never saw, and weighs two named adapters over a prompt of two tasks. What
is finished stays in `--work`: the same command goes on where it was stopped.
"""

import json
import random
import shlex
from collections.abc import Mapping, Sequence
from math import exp
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from lab import harness
from lab.evaluation.composite import BETWEEN
from lab.evaluation.intervals import bootstrap_groups
from lab.evaluation.papers import read_archive
from lab.train_pool import Quantization
from ramole_core.errors import RamoleError
from ramole_core.pool.uploads import read_samples
from ramole_core.settings import holds_weights, load_settings
from ramole_core.training.rows import read_lines

GATE = (
    "--until 400 --learning-rate 2e-3 --batch-rows 8 --max-tokens 160 --dev-rows 80 "
    "--measure-every 20 --patience 4"
)
CONTROLS = "controls"
"""Where the systems without a gate are asked, once for all gates."""
UNTRAINED = ("base", "perfect", "selection", "similarity", "mixture")
RANDOM = "random_router"
"""Asked beside the first gate, whose rank and scale it has."""
RIVALS = {
    "mixture": "equal weights",
    "random_router": "a random gate",
    "similarity": "similarity",
    "selection": "the nearest alone",
}
MEASURES = (("iid", "strict"), ("ood", "strict"), ("composite", "ahead"), ("composite", "loss"))
LIKELY = "likely"
"""Two tasks in one prompt: how likely each token of the right answers is, in percent, the geometric
mean."""
PAPERS = "a share of the tasks, as in the paper"
OTHERS = {
    "own": "the same, the own adapter as a target",
    "composed": "the same, two tasks a prompt",
    "all": "all tasks, none hidden",
}
"""Trainings beside the paper's, with the first seed."""
Cells = Mapping[str, Mapping[str, Sequence[float]]]
"""By system, then task or pair: a value for each row."""


def main(
    data: harness.Data,
    work: harness.Work = Path("router_claim"),
    share: Annotated[float, typer.Option(help="Of the tasks, that gates are trained on.")] = 0.4,
    seeds: Annotated[str, typer.Option(help="Of the trainings, comma separated.")] = "0,1,2",
    gate: Annotated[str, typer.Option(help="Options of each training.")] = GATE,
    others: Annotated[str, typer.Option(help="Trainings beside them.")] = ",".join(OTHERS),
    rows: harness.Rows = 12,
    skip: harness.Skip = 60,
    quantization: Quantization = "int4",
    out: harness.Out = harness.RESULTS / "router_claim.json",
) -> None:
    """Train what is missing, ask what is missing, and write the table."""
    names = sorted(name for _, name in read_samples(load_settings().adapters_dir)[0])
    seen = sorted(random.Random(0).sample(names, round(share * len(names))))
    trained = {"base": harness.base_name(), "quantization": quantization, "gate": gate}
    work = work / harness.digest({**trained, "names": names, "seen": seen}, 12)
    if unknown := {*harness.words(others)} - {*OTHERS}:
        raise RamoleError(f"--others {min(unknown)} is none; choose from {', '.join(OTHERS)}.")
    gates = [f"seed {seed}" for seed in harness.words(seeds)] + harness.words(others)
    archives = {}
    for name in (CONTROLS, *gates):
        folder = work / name.replace(" ", "_")
        here = {"RAMOLE_DATA_DIR": str(folder), "RAMOLE_QUANTIZATION": quantization}
        router = folder / "trained" / "_router"
        if name in gates and not holds_weights(router):
            training = _training(name, names, seen, gate, data, work, dev=skip)
            harness.run_product(["train", "method", "ramole", *training], here)
            if not holds_weights(router):
                raise RamoleError(f"The training of {name} is not over; run the command again.")
        asked = UNTRAINED if name == CONTROLS else ("ramole",)
        if name == gates[0]:
            asked = ("ramole", RANDOM)
        answers = folder / f"rows_{skip}_{rows}_{len(asked)}.json"
        if not answers.is_file():
            command = ["evaluate", "--data", str(data), "--systems", ",".join(asked)]
            command += ["--quantization", quantization, "--situations", "iid,ood,composite"]
            command += ["--rows", str(rows), "--skip", str(skip)]
            command += ["--work", str(folder / "cells"), "--out", str(answers)]
            harness.run_product(command, here)
        archives[name] = answers.with_name(f"{answers.stem}_cells.json.gz")
    facts = read_archive(archives[CONTROLS])["facts"]
    results = harness.Results(out, facts, gate=gate, seen=seen, rows=rows, skip=skip)
    results.write(measure="points of score, higher is better", rows=table(archives, seen))


def _training(
    name: str,
    names: Sequence[str],
    seen: Sequence[str],
    gate: str,
    data: Path,
    work: Path,
    *,
    dev: int,
) -> list[str]:
    """The options of one training, which reads the first `dev` dev rows of a task alone."""
    options = shlex.split(gate)
    if name == "composed":
        data = write_composed(data, seen, work / "composed_rows", dev=dev)
    if name == "own":
        options += ["--set", "own=1"]
    if name == "all":
        options += ["--masked", "0"]
    seed = name.removeprefix("seed ") if name.startswith("seed ") else "0"
    adapters = names if name == "all" else seen
    return ["--data", str(data), "--adapters", ",".join(adapters), "--seed", seed, *options]


def write_composed(data: Path, names: Sequence[str], folder: Path, *, dev: int) -> Path:
    """Each task's rows, every other one with a row of another task behind it; the folder. Of dev
    rows the first `dev`."""
    for split in ("train", "dev"):
        count = dev if split == "dev" else None
        tasks = {name: read_lines(data / name / f"{split}.jsonl")[:count] for name in names}
        chance = random.Random(split)
        for name, lines in tasks.items():
            made = []
            for number, row in enumerate(lines):
                if number % 2:
                    row = _joined(row, chance.choice(tasks[chance.choice([*{*names} - {name}])]))
                made.append(json.dumps({field: row[field] for field in ("inputs", "targets")}))
            (folder / name).mkdir(parents=True, exist_ok=True)
            (folder / name / f"{split}.jsonl").write_text("\n".join(made), "utf-8")
    return folder


def _joined(*rows: Mapping[str, str]) -> dict[str, str]:
    return {field: BETWEEN.join(row[field] for row in rows) for field in ("inputs", "targets")}


def table(archives: Mapping[str, Path], seen: Sequence[str]) -> list[dict[str, object]]:
    """Each gate in each situation, minus each rival; of several seeds the mean, row by row.
    `archives`: by gate, and of the systems without one under `CONTROLS`; `RANDOM` is in one."""
    found = []
    for situation, measure in MEASURES:
        cells = {name: read_cells(file, situation, measure) for name, file in archives.items()}
        controls = cells.pop(CONTROLS)
        for one in cells.values():
            if RANDOM in one:
                controls[RANDOM] = one[RANDOM]
        gates: dict[str, list[Mapping[str, Sequence[float]]]] = {}
        for name, each in cells.items():
            if "ramole" in each:  # else nothing was asked there
                gate = PAPERS if name.startswith("seed ") else OTHERS[name]
                gates.setdefault(gate, []).append(each["ramole"])
        units_of = next((each[0] for each in gates.values()), {})
        for part, units in parts_of(units_of, seen).items():
            for gate, trained in gates.items():
                if gate == OTHERS["all"] and part != "all":
                    continue  # it saw every task
                group = LIKELY if measure == "loss" else situation
                found.append(_row(f"{group}, {part}", gate, trained, controls, units))
    return found


def parts_of(
    units: Sequence[str] | Mapping[str, object], seen: Sequence[str]
) -> dict[str, list[str]]:
    """Tasks, or pairs of tasks, all of whose tasks a gate saw, or none; and all."""
    whole = {unit: {task in seen for task in unit.split(" and ")} for unit in units}
    parts = {"tasks it saw": {True}, "tasks it never saw": {False}}
    kept = {
        part: [u for u, said in whole.items() if said == wanted] for part, wanted in parts.items()
    }
    return {**{part: each for part, each in kept.items() if each}, "all": [*whole]}


def _row(
    group: str,
    gate: str,
    trained: Sequence[Mapping[str, Sequence[float]]],
    controls: Cells,
    units: Sequence[str],
) -> dict[str, object]:
    def flat(cell: Mapping[str, Sequence[float]]) -> list[float]:
        return [value for unit in units for value in cell[unit]]

    owners = [unit for unit in units for _ in trained[0][unit]]
    each = [flat(one) for one in trained]
    ours = np.mean(each, axis=0)
    row: dict[str, object] = {"group": group, "name": gate}
    row |= bootstrap_groups(ours.tolist(), owners).rounded(2)
    if len(each) > 1:
        row["seeds"] = [round(float(np.mean(one)), 2) for one in each]
    row["minus"] = {
        words: bootstrap_groups((ours - flat(controls[rival])).tolist(), owners).rounded(2)
        for rival, words in RIVALS.items()
        if rival in controls
    }
    return row


def read_cells(archive: Path, situation: str, measure: str) -> dict[str, dict[str, list[float]]]:
    """The values of an evaluation by system, then task or pair; of systems that have them."""
    found: dict[str, dict[str, list[float]]] = {}
    for key, cell in read_archive(archive)["cells"].items():
        where, system, unit = key.split("/")
        values = cell.get(measure) or cell["measures"].get(measure)
        if measure == "loss":  # as a probability: the larger the better, as all the others
            values = [100 * exp(-value) for value in values or ()]
        if where.partition("-")[0] in (situation, "alone") and values:
            found.setdefault(system, {})[unit] = values
    return found
