"""What CA-LoRA recovers on a base that was compressed harder than to 4 bits, and in NF4.

    python -m lab ca_lora_table --data DATA

Five ways to get one task's adapter onto a compressed base, all trained for the same steps on the
same rows: the adapter as it is (`inherited`); a new LoRA of its shape trained there as the pool's
were (`trained_there`); the adapter trained further there by the answers alone, without bypass and
teacher (`trained_on`); and CA-LoRA (`ca_lora`). The end of the scale is the uncompressed base with
the adapter (`uncompressed`). Measured on dev rows: the task's metric over greedy answers, and the
loss of the right answer in nats a token; intervals are over tasks. The pool's adapters were trained
on the NF4 base; on the uncompressed one, which teaches, they are as good within these intervals, or
the table says otherwise.

Compression is simulated (`compressed_base.py`). Cells and checkpoints are kept in WORK, so a
stopped run goes on where it was.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from transformers import PreTrainedModel

from lab import harness
from lab.evaluation.answers import measure_task
from lab.evaluation.cells import MEASURED, Cell, fill, open_cells, pair_systems, read_system
from lab.evaluation.compressed_base import write_compressed
from ramole_core.base.model import BaseModel, load_base
from ramole_core.base.shapes import read_shapes
from ramole_core.settings import load_settings
from ramole_core.training.adapter import attach_lora, fit_lora, reduced_precision
from ramole_core.training.loop import TrainingRun
from ramole_core.training.recipe import AdapterRecipe, MethodRecipe, Schedule
from ramole_core.training.recovery import Recovery
from ramole_core.training.rows import Task
from ramole_core.training.sources import PoolLoras, load_configured_base, read_loras

WHOLE = "uncompressed"
SYSTEMS = ("inherited", "trained_there", "trained_on", "ca_lora")
TASKS = "nl2regex,scitail,sms_spam,nl2bash,common_gen,e2e_nlg"
OURS = "ca_lora"


@dataclass(frozen=True)
class Trials:
    """One compressed base, its teacher, and the adapters on it."""

    base: BaseModel
    models: Recovery
    pool: PoolLoras
    tasks: Mapping[str, Task]
    recipe: MethodRecipe
    """Of `ca_lora`; `trained_on` is the same without bypass and teacher."""
    adapters_dir: Path
    work: Path

    def measure(self, system: str, names: Sequence[str]) -> Iterator[tuple[str, Cell]]:
        """Train what the system needs for each task, and measure it on the dev rows."""
        for name in names:
            with self._answering(system, name) as model:
                task = self.tasks[name]
                yield name, measure_task(model, self.base.tokenizer, task, names=[name])

    @contextmanager
    def _answering(self, system: str, name: str) -> Iterator[PreTrainedModel]:
        models = self.models
        if system == "trained_there":
            with self._trained_there(name) as plain:
                yield plain
        elif system in (WHOLE, "inherited"):
            model = models.teacher if system == WHOLE else models.student
            with model.gated_by(None, names=[(name,)]):
                yield model.plain
        else:
            recipe, bypass = self.recipe, system == OURS
            if not bypass:
                recipe = replace(recipe, settings={**recipe.settings, "distil": 0.0})
            run, task = TrainingRun(self._file(system, name)), self.tasks[name]
            tensors, _ = models.train(recipe, name, task=task, run=run, bypass=bypass)
            with models.mixing(tensors, name):
                yield models.student.plain

    @contextmanager
    def _trained_there(self, name: str) -> Iterator[PreTrainedModel]:
        made = json.loads((self.adapters_dir / name / "train.json").read_text("utf-8"))
        rate = made["schedule"]["learning_rate"]
        recipe = AdapterRecipe(
            name, rank=made["rank"], alpha=made["alpha"], modules=tuple(made["modules"]),
            layers=None if made["layers"] is None else tuple(made["layers"]), rslora=made["rslora"],
            schedule=replace(self.recipe.schedule, learning_rate=rate),
        )  # fmt: skip
        base, run = self.base, TrainingRun(self._file("trained_there", name))
        model = attach_lora(base, recipe)
        fit_lora(model, recipe, task=self.tasks[name], base=base, run=run)
        plain = model.get_base_model()
        assert isinstance(plain, PreTrainedModel)
        with reduced_precision(model, base.dtype, device=base.device):
            yield plain

    def _file(self, system: str, name: str) -> Path:
        kept = self.work / "checkpoints" / self.base.checksum[:12] / system / name
        return kept / f"seed{self.recipe.schedule.seed}"


def main(
    data: harness.Data = harness.DATA,
    tasks: harness.Tasks = TASKS,
    compressions: Annotated[
        str, typer.Option(help="Ways to compress, the main one first.")
    ] = "3bit,nf4",
    rows: harness.Rows = 40,
    skip: harness.Skip = 0,
    steps: harness.Steps = 16,
    batch_rows: harness.BatchRows = 6,
    learning_rate: harness.LearningRate = 1e-3,
    rank: Annotated[int, typer.Option(help="r of the bypass; its alpha is twice that.")] = 4,
    distil: Annotated[float, typer.Option(help="lambda.")] = 0.05,
    max_tokens: harness.MaxTokens = 160,
    seed: harness.Seed = 0,
    threads: harness.Threads = 0,
    work: harness.Work = Path("ca_lora_table"),
    out: harness.Out = harness.RESULTS / "ca_lora.json",
) -> None:
    """Train and measure every system; the file is written after each task."""
    settings, names = load_settings(), harness.words(tasks)
    asked = harness.read_tasks(data, names, rows=rows, skip=skip)
    teacher = replace(load_configured_base(), quantization="none")
    pool = read_loras(names, settings=settings, shapes=read_shapes(teacher.folder))
    schedule = Schedule(
        steps=steps, batch_rows=batch_rows, learning_rate=learning_rate, warmup=3, seed=seed,
        max_tokens=max_tokens, evaluate_every=steps, checkpoint_every=4, dev_rows=10,
    )  # fmt: skip
    settings_of = {"rank": rank, "alpha": 2.0 * rank, "distil": distil}
    recipe = MethodRecipe(OURS, settings_of, schedule=schedule)
    facts = {"base_checksum": teacher.checksum, "adapters": pool.checksums, "rows": rows}
    facts |= {"skipped": skip, "recipe": asdict(recipe)}
    cells = open_cells(work / "cells", **facts)
    results, tables = harness.Results(out, facts, measure=MEASURED), dict[str, object]()
    for how in harness.words(compressions):
        folder = work / "bases" / how
        if not (folder / "config.json").is_file():
            write_compressed(teacher.folder, folder, how=how)
        base = load_base(
            str(folder), data_dir=work / "data", quantization="none", device=settings.device
        )
        places = {WHOLE: WHOLE} | dict.fromkeys(SYSTEMS, how)
        shapes = read_shapes(base.folder)
        models = Recovery(base, teacher, loras=pool.loras, shapes=shapes, checksums=pool.checksums)
        with closing(models):
            trials = Trials(base, models, pool, asked, recipe, settings.adapters_dir, work)
            for name in names:
                for system, place in places.items():
                    fill(cells, place, system, [name], partial(trials.measure, system))
                found = {one: read_system(cells, at, one, names) for one, at in places.items()}
                tables[how] = pair_systems(found, names, ours=OURS)
                results.write(tables=tables)
