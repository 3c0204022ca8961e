"""Experts of LLaVA-MoLE against one plain LoRA, trained on the same mixture of tasks.

    python -m lab llava_mole_table --data DATA

`llava_mole` has several experts in each MLP; `one_lora` is the same with one expert, which is a
plain LoRA of that rank in every linear layer, trained on the same rows for the same steps;
`one_lora_twice` takes twice the steps, so it sees twice the rows; `apart` is a plain LoRA for each
task, trained on that task alone for its share of the steps: what there is to lose by mixing. All
have the same start, order and rates. Measured on dev rows of each task: its metric over greedy
answers, and the loss of the right answer in nats a token; intervals are over tasks, so with three
of them they are wide. Losses in training are in the file too.

Runs and cells are kept in WORK, so a stopped run goes on where it was.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from torch import Tensor

from lab import harness
from lab.evaluation.answers import measure_task
from lab.evaluation.cells import MEASURED, Cell, fill, open_cells, pair_systems, read_system
from ramole_core.base.model import BaseModel
from ramole_core.base.shapes import read_shapes
from ramole_core.training.checkpoint import Progress
from ramole_core.training.loop import TrainingRun
from ramole_core.training.mole import MoleModel
from ramole_core.training.recipe import MethodRecipe, Schedule
from ramole_core.training.rows import Task
from ramole_core.training.sources import load_configured_base

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


@dataclass(frozen=True)
class Trials:
    """Trains what is not in the work folder yet, and measures it."""

    base: BaseModel
    model: MoleModel
    tasks: Mapping[str, Task]
    recipe: MethodRecipe
    work: Path
    made: dict[str, tuple[dict[str, Tensor], Progress]] = field(default_factory=dict)

    def measure(self, system: str, names: Sequence[str]) -> Iterator[tuple[str, Cell]]:
        """The system on the dev rows of each task."""
        for name in names:
            tensors, _ = self.trained(system, name)
            with self.model.trained(tensors):
                task, tokenizer = self.tasks[name], self.base.tokenizer
                yield name, measure_task(self.model.plain, tokenizer, task, names=[system])

    def trained(self, system: str, name: str) -> tuple[dict[str, Tensor], Progress]:
        """What answers the rows of one task; a finished run is read from its checkpoint."""
        run = f"{system}-{name}" if system == "apart" else system
        if run not in self.made:
            tasks = [self.tasks[name]] if system == "apart" else list(self.tasks.values())
            recipe = recipe_of(system, self.recipe, tasks=len(self.tasks))
            kept = f"{run}-{'-'.join(self.tasks)}-seed{recipe.schedule.seed}"
            folder = TrainingRun(self.work / "checkpoints" / kept)
            self.made[run] = self.model.train(recipe, tasks, run=folder)
        return self.made[run]


def main(
    data: harness.Data = harness.DATA,
    tasks: harness.Tasks = TASKS,
    rows: harness.Rows = 40,
    skip: harness.Skip = 0,
    steps: harness.Steps = 36,
    batch_rows: harness.BatchRows = 9,
    learning_rate: harness.LearningRate = 2e-3,
    experts: Annotated[int, typer.Option(help="n.")] = 3,
    rank: Annotated[int, typer.Option(help="r of each LoRA; its alpha is twice that.")] = 4,
    balance: Annotated[float, typer.Option(help="beta.")] = 0.01,
    max_tokens: harness.MaxTokens = 160,
    seed: harness.Seed = 0,
    threads: harness.Threads = 0,
    work: harness.Work = Path("llava_mole_table"),
    out: harness.Out = harness.RESULTS / "llava_mole.json",
) -> None:
    """Train and measure every system; the file is written after each."""
    names = harness.words(tasks)
    asked = harness.read_tasks(data, names, rows=rows, skip=skip)
    schedule = Schedule(
        steps=steps, batch_rows=batch_rows, learning_rate=learning_rate, seed=seed,
        max_tokens=max_tokens, evaluate_every=steps, checkpoint_every=4, dev_rows=10 * len(names),
    )  # fmt: skip
    settings = {"experts": experts, "rank": rank, "alpha": 2.0 * rank, "balance": balance}
    recipe = MethodRecipe(OURS, settings, schedule=schedule)
    base = load_configured_base()
    facts = {"tasks": names, "rows": rows, "skipped": skip, "recipe": asdict(recipe)}
    cells = open_cells(work / "cells", base=base.checksum, quantization=base.quantization, **facts)
    results, losses = harness.Results(out, facts, base=base, measure=MEASURED), {}
    model = MoleModel(base, read_shapes(base.folder))
    trials = Trials(base, model, asked, recipe, work)
    for system in SYSTEMS:
        fill(cells, "mixture", system, names, partial(trials.measure, system))
        losses[system] = {}
        for name in names if system == "apart" else names[:1]:
            run = trials.trained(system, name)[1]
            train = [round(loss, 4) for loss in run.train_losses]
            losses[system][name] = {"train": train, "dev": run.dev_losses}
        found = {one: read_system(cells, "mixture", one, names) for one in SYSTEMS}
        results.write(training=losses, table=pair_systems(found, names, ours=OURS))
    model.close()
