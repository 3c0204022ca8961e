"""What CA-LoRA recovers on a base that was compressed harder than to 4 bits, and in NF4.

    python -m lab.evaluation.ca_lora_table --data DATA

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
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor
from transformers import PreTrainedModel

from lab.evaluation.cells import Cell, Cells
from lab.evaluation.compressed_base import write_compressed
from lab.evaluation.measured_task import measure_task
from lab.evaluation.paired_table import line_of, pair_systems
from ramole_core.base.model import BaseModel, load_base
from ramole_core.base.shapes import read_shapes
from ramole_core.settings import REPOSITORY, load_settings
from ramole_core.terminal.recorded_command import recorded_command
from ramole_core.training.adapter import attach_lora, fit_lora, reduced_precision
from ramole_core.training.card import versions
from ramole_core.training.configured_base import load_configured_base
from ramole_core.training.loop import Run
from ramole_core.training.pool_loras import PoolLoras, read_loras
from ramole_core.training.recipe import AdapterRecipe, MethodRecipe, Schedule
from ramole_core.training.recovery import Recovery
from ramole_core.training.rows import Task, read_task

MODULE = "lab.evaluation.ca_lora_table"
WHOLE = "uncompressed"
SYSTEMS = ("inherited", "trained_there", "trained_on", "ca_lora")
TASKS = "nl2regex,scitail,sms_spam,nl2bash,common_gen,e2e_nlg"
OURS = "ca_lora"

Mixing = Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True)
class Plan:
    """What is trained, and on how many rows it is measured."""

    recipe: MethodRecipe
    """Of `ca_lora`; `trained_on` is the same without bypass and teacher."""
    rows: int


class Trials:
    """One compressed base, its teacher, and the adapters on it."""

    def __init__(
        self,
        base: BaseModel,
        teacher: BaseModel,
        *,
        pool: PoolLoras,
        tasks: dict[str, Task],
        plan: Plan,
        adapters_dir: Path,
        work: Path,
    ):
        self._base, self._pool, self._tasks, self._plan = base, pool, tasks, plan
        self._adapters_dir, self._work = adapters_dir, work
        self._models = Recovery(base, teacher, loras=pool.loras, shapes=read_shapes(base.folder))

    def close(self) -> None:
        self._models.close()

    def cell(self, system: str, name: str) -> Cell:
        """Train what the system needs, and measure it on the task's dev rows."""
        began = time.perf_counter()
        if system == "trained_there":
            return self._trained_there(name, began)
        models = self._models
        if system in (WHOLE, "inherited"):
            model = models.teacher if system == WHOLE else models.student
            return self._measure(
                model.plain, name, lambda: model.gated_by(None, names=[(name,)]), began
            )
        recipe = self._plan.recipe
        bypass = system == "ca_lora"
        if not bypass:
            recipe = replace(recipe, settings={**recipe.settings, "distil": 0.0})
        checksum = self._pool.checksums[name]
        tensors, _ = models.train(
            recipe,
            name,
            checksum,
            task=self._tasks[name],
            run=Run(self._file(system, name)),
            bypass=bypass,
        )
        mixing = self._mixing_of(tensors, name, checksum)
        return self._measure(models.student.plain, name, mixing, began)

    def _mixing_of(self, tensors: dict[str, Tensor], name: str, checksum: str) -> Mixing:
        return lambda: self._models.mixing(tensors, name, checksum)

    def _trained_there(self, name: str, began: float) -> Cell:
        made = json.loads((self._adapters_dir / name / "train.json").read_text("utf-8"))
        schedule = replace(
            self._plan.recipe.schedule, learning_rate=made["schedule"]["learning_rate"]
        )
        recipe = AdapterRecipe(
            name,
            rank=made["rank"],
            alpha=made["alpha"],
            modules=tuple(made["modules"]),
            layers=None if made["layers"] is None else tuple(made["layers"]),
            rslora=made["rslora"],
            schedule=schedule,
        )
        base, task = self._base, self._tasks[name]
        model = attach_lora(base, recipe)
        out = self._file("trained_there", name)
        fit_lora(model, recipe, task=task, base=base, run=Run(out))
        plain = model.get_base_model()
        assert isinstance(plain, PreTrainedModel)
        with reduced_precision(model, base.dtype, device=base.device):
            return self._measure(plain, name, nullcontext, began)

    def _measure(self, model: PreTrainedModel, name: str, mixing: Mixing, began: float) -> Cell:
        tokenizer, task = self._base.tokenizer, self._tasks[name]
        with mixing():
            return measure_task(
                model, tokenizer, task, rows=self._plan.rows, names=[name], began=began
            )

    def _file(self, system: str, name: str) -> Path:
        kept = self._work / "checkpoints" / self._base.checksum[:12] / system / name
        return kept / f"seed{self._plan.recipe.schedule.seed}"


def main(
    data: Annotated[Path, typer.Option(help="Folder of task folders.")] = Path("data"),
    tasks: Annotated[str, typer.Option(help="Adapters, each on its own task.")] = TASKS,
    compressions: Annotated[str, typer.Option(help="Ways to compress, the main one first.")] = (
        "3bit,nf4"
    ),
    rows: Annotated[int, typer.Option(help="Dev rows of each task.")] = 40,
    steps: Annotated[int, typer.Option(help="Optimiser steps of each training.")] = 16,
    batch_rows: Annotated[int, typer.Option(help="Rows a step.")] = 6,
    learning_rate: Annotated[float, typer.Option(help="Peak, of CA-LoRA and trained_on.")] = 1e-3,
    rank: Annotated[int, typer.Option(help="r of the bypass; its alpha is twice that.")] = 4,
    distil: Annotated[float, typer.Option(help="lambda.")] = 0.05,
    max_tokens: Annotated[int, typer.Option(help="Longer training rows are left out.")] = 160,
    seed: Annotated[int, typer.Option(help="Seed of weights and order.")] = 0,
    threads: Annotated[int, typer.Option(help="Cores; 0: as torch chooses.")] = 0,
    work: Annotated[Path, typer.Option(help="Where bases, checkpoints and cells are kept.")] = Path(
        "ca_lora_table"
    ),
    out: Annotated[Path, typer.Option(help="The JSON file.")] = (
        REPOSITORY / "results" / "ca_lora.json"
    ),
) -> None:
    """Train and measure every system; the file is written after each cell."""
    if threads:
        torch.set_num_threads(threads)
    settings, names = load_settings(), [one.strip() for one in tasks.split(",") if one.strip()]
    teacher = replace(load_configured_base(), quantization="none")
    pool = read_loras(names, settings=settings, shapes=read_shapes(teacher.folder))
    schedule = Schedule(
        steps=steps, batch_rows=batch_rows, learning_rate=learning_rate, warmup=3, seed=seed,
        max_tokens=max_tokens, evaluate_every=steps, checkpoint_every=4, dev_rows=10,
    )  # fmt: skip
    settings_of = {"rank": rank, "alpha": 2.0 * rank, "distil": distil}
    plan = Plan(MethodRecipe("ca_lora", settings_of, schedule=schedule), rows)
    facts = {
        "base_checksum": teacher.checksum,
        "adapters": pool.checksums,
        "rows": rows,
        "recipe": asdict(plan.recipe),
        "versions": versions(),
    }
    cells = Cells(work / "cells", facts)
    report: dict[str, object] = {
        "command": recorded_command(MODULE),
        "date": date.today().isoformat(),
        "measure": "score: the task's metric over greedy answers, 0 to 100; loss: nats a token",
        **facts,
        "tables": {},
    }
    for how in [one.strip() for one in compressions.split(",") if one.strip()]:
        folder = work / "bases" / how
        if not (folder / "config.json").is_file():
            write_compressed(teacher.folder, folder, how=how)
        base = load_base(
            str(folder), data_dir=work / "data", quantization="none", device=settings.device
        )
        trials = Trials(
            base, teacher, pool=pool, plan=plan, work=work, adapters_dir=settings.adapters_dir,
            tasks={name: read_task(data / name) for name in names},
        )  # fmt: skip
        for name in names:
            for system in (WHOLE, *SYSTEMS):
                situation = WHOLE if system == WHOLE else how
                if not cells.has(situation, system, name):
                    cell = trials.cell(system, name)
                    cells.write(situation, system, name, cell)
                    print(line_of(how, system, name, cell), flush=True)
            report["tables"] = {
                **_tables(report),
                how: pair_systems(_read(cells, how, names), names, ours=OURS),
            }
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        trials.close()


def _tables(report: dict[str, object]) -> dict[str, object]:
    tables = report["tables"]
    assert isinstance(tables, dict)
    return tables


def _read(cells: Cells, how: str, names: Sequence[str]) -> dict[str, dict[str, Cell]]:
    """The cells that are there, by system and task."""
    found: dict[str, dict[str, Cell]] = {}
    for system in (WHOLE, *SYSTEMS):
        situation = WHOLE if system == WHOLE else how
        every = {name: cells.read(situation, system, name) for name in names}
        found[system] = {name: cell for name, cell in every.items() if cell is not None}
    return found


if __name__ == "__main__":
    typer.run(main)
