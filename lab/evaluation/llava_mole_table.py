"""Experts of LLaVA-MoLE against one plain LoRA, trained on the same mixture of tasks.

    python -m lab.evaluation.llava_mole_table --data DATA

`llava_mole` has several experts in each MLP; `one_lora` is the same with one expert, which is a
plain LoRA of that rank in every linear layer, trained on the same rows for the same steps;
`one_lora_twice` takes twice the steps, so it sees twice the rows; `apart` is a plain LoRA for each
task, trained on that task alone for its share of the steps: what there is to lose by mixing. All
have the same start, order and rates. Measured on dev rows of each task: its metric over greedy
answers, and the loss of the right answer in nats a token; intervals are over tasks, so with three
of them they are wide. Losses in training are in the file too.

Runs and cells are kept in WORK, so a stopped run goes on where it was.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import date
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor

from lab.evaluation.cells import Cell, Cells
from lab.evaluation.measured_task import measure_task
from lab.evaluation.paired_table import line_of, pair_systems
from ramole_core.base.model import BaseModel
from ramole_core.base.shapes import read_shapes
from ramole_core.settings import REPOSITORY
from ramole_core.terminal.recorded_command import recorded_command
from ramole_core.training.card import versions
from ramole_core.training.checkpoint import Progress
from ramole_core.training.configured_base import load_configured_base
from ramole_core.training.loop import Run
from ramole_core.training.mole import MoleModel
from ramole_core.training.recipe import MethodRecipe, Schedule
from ramole_core.training.rows import Task, read_task

MODULE = "lab.evaluation.llava_mole_table"
SYSTEMS = ("one_lora", "one_lora_twice", "apart", "llava_mole")
OURS = "llava_mole"
TASKS = "nl2bash,scitail,e2e_nlg"


def recipe_of(system: str, recipe: MethodRecipe, *, tasks: int) -> MethodRecipe:
    """How a system is trained, from the recipe of `llava_mole` on so many tasks."""
    if system == OURS:
        return recipe
    steps = recipe.schedule.steps
    steps = {"one_lora": steps, "one_lora_twice": 2 * steps, "apart": max(1, steps // tasks)}
    schedule = replace(recipe.schedule, steps=steps[system], evaluate_every=steps[system])
    return replace(recipe, settings={**recipe.settings, "experts": 1}, schedule=schedule)


class Trials:
    """Trains what is not in the work folder yet, and measures it."""

    def __init__(
        self,
        base: BaseModel,
        *,
        tasks: Mapping[str, Task],
        recipe: MethodRecipe,
        rows: int,
        work: Path,
    ):
        self._base, self._tasks, self._recipe = base, tasks, recipe
        self._rows, self._work = rows, work
        self._model = MoleModel(base, read_shapes(base.folder))
        self._trained: dict[str, tuple[dict[str, Tensor], Progress]] = {}

    def close(self) -> None:
        self._model.close()

    def cell(self, system: str, name: str) -> Cell:
        """The system's dev rows of one task."""
        began = time.perf_counter()
        tensors, _ = self.trained(system, name)
        with self._model.mixing(tensors):
            return measure_task(
                self._model.plain, self._base.tokenizer, self._tasks[name], rows=self._rows,
                names=[system], began=began,
            )  # fmt: skip

    def trained(self, system: str, name: str) -> tuple[dict[str, Tensor], Progress]:
        """What answers the rows of one task; a finished run is read from its checkpoint."""
        run = f"{system}-{name}" if system == "apart" else system
        if run not in self._trained:
            tasks = [self._tasks[name]] if system == "apart" else list(self._tasks.values())
            recipe = recipe_of(system, self._recipe, tasks=len(self._tasks))
            kept = f"{run}-{'-'.join(self._tasks)}-seed{recipe.schedule.seed}"
            self._trained[run] = self._model.train(
                recipe, tasks, run=Run(self._work / "checkpoints" / kept)
            )
        return self._trained[run]


def main(
    data: Annotated[Path, typer.Option(help="Folder of task folders.")] = Path("data"),
    tasks: Annotated[str, typer.Option(help="Tasks that are mixed.")] = TASKS,
    rows: Annotated[int, typer.Option(help="Dev rows of each task.")] = 40,
    steps: Annotated[int, typer.Option(help="Optimiser steps of one run.")] = 36,
    batch_rows: Annotated[int, typer.Option(help="Rows a step.")] = 9,
    learning_rate: Annotated[float, typer.Option(help="Peak learning rate.")] = 2e-3,
    experts: Annotated[int, typer.Option(help="n.")] = 3,
    rank: Annotated[int, typer.Option(help="r of each LoRA; its alpha is twice that.")] = 4,
    balance: Annotated[float, typer.Option(help="beta.")] = 0.01,
    max_tokens: Annotated[int, typer.Option(help="Longer training rows are left out.")] = 160,
    seed: Annotated[int, typer.Option(help="Seed of weights and order.")] = 0,
    threads: Annotated[int, typer.Option(help="Cores; 0: as torch chooses.")] = 0,
    work: Annotated[Path, typer.Option(help="Where runs and cells are kept.")] = Path(
        "llava_mole_table"
    ),
    out: Annotated[Path, typer.Option(help="The JSON file.")] = (
        REPOSITORY / "results" / "llava_mole.json"
    ),
) -> None:
    """Train and measure every system; the file is written after each."""
    if threads:
        torch.set_num_threads(threads)
    names = [one.strip() for one in tasks.split(",") if one.strip()]
    schedule = Schedule(
        steps=steps, batch_rows=batch_rows, learning_rate=learning_rate, seed=seed,
        max_tokens=max_tokens, evaluate_every=steps, checkpoint_every=4, dev_rows=10 * len(names),
    )  # fmt: skip
    settings = {"experts": experts, "rank": rank, "alpha": 2.0 * rank, "balance": balance}
    recipe = MethodRecipe(OURS, settings, schedule=schedule)
    base = load_configured_base()
    facts = {
        "base_checksum": base.checksum,
        "quantization": base.quantization,
        "tasks": names,
        "rows": rows,
        "recipe": asdict(recipe),
        "versions": versions(),
    }
    cells = Cells(work / "cells", facts)
    trials = Trials(
        base, tasks={name: read_task(data / name) for name in names}, recipe=recipe, rows=rows,
        work=work,
    )  # fmt: skip
    losses: dict[str, object] = {}
    for system in SYSTEMS:
        for name in names:
            if not cells.has("mixture", system, name):
                cell = trials.cell(system, name)
                cells.write("mixture", system, name, cell)
                print(line_of("mixture", system, name, cell), flush=True)
        losses[system] = {
            name: _losses(trials.trained(system, name)[1])
            for name in (names if system == "apart" else names[:1])
        }
        report = {
            "command": recorded_command(MODULE),
            "date": date.today().isoformat(),
            "measure": "score: the task's metric over greedy answers, 0 to 100; loss: nats a token",
            **facts,
            "training": losses,
            "table": pair_systems(_read(cells, names), names, ours=OURS),
        }
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    trials.close()


def _losses(progress: Progress) -> dict[str, object]:
    return {
        "train": [round(loss, 4) for loss in progress.train_losses],
        "dev": progress.dev_losses,
    }


def _read(cells: Cells, names: Sequence[str]) -> dict[str, dict[str, Cell]]:
    """The cells that are there, by system and task; a table needs those of all systems."""
    found: dict[str, dict[str, Cell]] = {}
    for system in SYSTEMS:
        every = {name: cells.read("mixture", system, name) for name in names}
        found[system] = {name: cell for name, cell in every.items() if cell is not None}
    return found


if __name__ == "__main__":
    typer.run(main)
