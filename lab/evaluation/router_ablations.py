"""What in the router's training matters: dropout, rank, share of the tasks; and how many are mixed.

    python -m lab router_ablations --data DATA

Every variant changes one thing of USUAL and trains it anew, once a seed. All are measured on the
dev rows of adapters that no variant was trained on, with the row's own adapter among the k and
without it (`router_table.py`), beside equal weights for the same k adapters, which are no training
at all. A trained gate and its losses are kept in WORK, so a stopped run goes on where it was.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from lab import harness
from lab.evaluation.answers import MAX_TOKENS
from lab.evaluation.cells import Cell, Cells, compare_rows, fill, measured, open_cells
from lab.evaluation.router_table import SETTINGS, UNSEEN, Unseen, measure_gates
from ramole_core.base.model import BaseModel
from ramole_core.base.shapes import read_shapes
from ramole_core.composition import Router, load_router
from ramole_core.errors import RamoleError
from ramole_core.settings import load_settings
from ramole_core.training.configured_base import load_configured_base
from ramole_core.training.loop import Run
from ramole_core.training.method import train_method
from ramole_core.training.mixed_model import Loras, MixedModel, Shapes
from ramole_core.training.pool_loras import read_loras
from ramole_core.training.recipe import MethodRecipe, Schedule
from ramole_core.training.rows import Encoded, Task, encode_rows, read_task

HIDDEN = {"own": "right adapter present", "others": "right adapter hidden"}


@dataclass(frozen=True)
class Variant:
    """One way to train a router, and how many adapters it then weighs."""

    group: str
    name: str
    dropout: float = 0.5
    rank: int = 6
    share: float = 0.4
    """Of the adapters that are not measured."""
    k: int = 3

    @property
    def trained(self) -> str:
        """What the trained gate depends on: its file's name, without the seed."""
        return f"dropout{self.dropout:g}-rank{self.rank}-share{self.share:g}"


USUAL = Variant("", "")
VARIANTS = (
    Variant("dropout", "no dropout", dropout=0.0),
    Variant("dropout", "dropout 0.5"),
    Variant("rank", "rank 2", rank=2),
    Variant("rank", "rank 6"),
    Variant("rank", "rank 16", rank=16),
    Variant("share", "20 % of the tasks", share=0.2),
    Variant("share", "40 % of the tasks"),
    Variant("share", "100 % of the tasks", share=1.0),
    Variant("k", "k = 1", k=1),
    Variant("k", "k = 3"),
    Variant("k", "k = 8", k=8),
)
Losses = list[float]
"""Of every measured row, in one order, nats a token."""


def draw_share(names: Sequence[str], share: float, *, seed: int) -> tuple[str, ...]:
    """A share of the adapters to train on, at least two; a larger share holds the smaller ones."""
    order = random.Random(seed).sample(sorted(names), len(names))
    return tuple(order[: max(2, round(share * len(names)))])


def summarise(
    variant: Variant,
    setting: str,
    found: Sequence[Losses],
    *,
    uniform: Losses,
    tasks: Sequence[str],
) -> dict:
    """A variant's row of the table; `found` holds each seed's losses of the same rows, `tasks` the
    task of each. The mean's interval is over rows, that of the difference over tasks."""
    row = compare_rows(np.mean(found, axis=0).tolist(), uniform, tasks, rival="equal weights")
    return {
        "group": variant.group,
        "name": f"{variant.name}, {HIDDEN[setting]}",
        **row,
        "seeds": [round(float(np.mean(losses)), 4) for losses in found],
    }


@dataclass(frozen=True)
class Trials:
    """Trains and measures what the cells do not hold yet."""

    cells: Cells
    base: BaseModel
    shapes: Shapes
    loras: Loras
    data: Path
    unseen: Mapping[str, Task]
    """The tasks that are measured, on their dev rows."""
    schedule: Schedule

    @property
    def seen(self) -> tuple[str, ...]:
        """The adapters that a router may be trained on."""
        return tuple(name for name in self.loras if name not in self.unseen)

    @cached_property
    def dev(self) -> dict[str, Sequence[Encoded]]:
        """The measured rows by task."""
        tokenizer = self.base.tokenizer
        return {
            name: encode_rows(tokenizer, task.dev, max_tokens=MAX_TOKENS)
            for name, task in self.unseen.items()
        }

    @property
    def tasks(self) -> list[str]:
        """The task of each measured row."""
        return [name for name, rows in self.dev.items() for _ in rows]

    def losses(self, variant: Variant, setting: str, seed: int) -> Losses:
        """Under the variant's trained gate; one adapter has all the weight under any gate."""
        if variant.k == 1:
            return self.uniform(setting, k=1)
        name = f"{variant.trained}-k{variant.k}-seed{seed}"
        return self._rows(setting, name, lambda: self._router(variant, seed), k=variant.k)

    def uniform(self, setting: str, *, k: int) -> Losses:
        """Under equal weights for the same adapters."""
        return self._rows(setting, f"uniform-k{k}", lambda: None, k=k)

    def _rows(
        self, setting: str, system: str, router: Callable[[], Router | None], *, k: int
    ) -> Losses:
        def make(missing: Sequence[str]) -> Iterator[tuple[str, Cell]]:
            gate = router()
            gate = gate and gate.to(device=self.base.device, dtype=self.base.dtype)
            loras = {name: self.loras[name] for name in self.dev}
            model = MixedModel(self.base, loras=loras, shapes=self.shapes)
            try:
                found = measure_gates(
                    model, self.dev, gates={"gate": [gate]}, setting=setting, seed=0, k=k
                )["gate"]
            finally:
                model.close()
            for name in missing:
                yield name, Cell([], [], [], measures={"loss": found[name]})

        return measured(fill(self.cells, setting, system, list(self.dev), make), "loss")

    def _router(self, variant: Variant, seed: int) -> Router:
        folder = self.cells.folder / "gates" / f"{variant.trained}-seed{seed}"
        if not (folder / "router.safetensors").is_file():
            names = draw_share(self.seen, variant.share, seed=seed)
            settings = {"rank": variant.rank, "alpha": 2.0 * variant.rank}
            schedule = replace(self.schedule, seed=seed)
            recipe = MethodRecipe("ramole", settings, dropout=variant.dropout, schedule=schedule)
            loras = {name: self.loras[name] for name in names}
            tasks = [read_task(self.data / name) for name in names]
            train_method(
                recipe, loras=loras, tasks=tasks, base=self.base, shapes=self.shapes,
                run=Run(folder),
            )  # fmt: skip
        return load_router(folder, shapes=self.shapes)


def main(
    data: harness.Data = harness.DATA,
    unseen: Unseen = UNSEEN,
    rows: harness.Rows = 50,
    skip: harness.Skip = 0,
    seeds: Annotated[int, typer.Option(help="Routers trained of each variant.")] = 2,
    steps: harness.Steps = 40,
    batch_rows: harness.BatchRows = 8,
    learning_rate: harness.LearningRate = 3e-3,
    max_tokens: harness.MaxTokens = 160,
    threads: harness.Threads = 0,
    work: harness.Work = Path("router_ablations"),
    out: harness.Out = harness.RESULTS / "router_ablations.json",
) -> None:
    """Train and measure every variant; the file is written after each."""
    settings = load_settings()
    base = load_configured_base()
    shapes = read_shapes(base.folder)
    pool = sorted(path.parent.name for path in settings.adapters_dir.glob("[!_]*/train.json"))
    names = harness.words(unseen)
    if unknown := [name for name in names if name not in pool]:
        raise RamoleError(f"No adapter is named {unknown[0]!r}; choose of {', '.join(pool)}.")
    schedule = Schedule(
        steps=steps, batch_rows=batch_rows, learning_rate=learning_rate, max_tokens=max_tokens,
        evaluate_every=steps, checkpoint_every=steps, dev_rows=8 * len(pool),
    )  # fmt: skip
    loras = read_loras(pool, settings=settings, shapes=shapes)
    facts = {"schedule": asdict(schedule), "unseen": names, "skipped": skip}
    depends = {"rows": rows, "base": base.checksum, "adapters": loras.checksums}
    cells = open_cells(work, quantization=base.quantization, **depends, **facts)
    asked = harness.read_tasks(data, names, rows=rows, skip=skip)
    trials = Trials(cells, base, shapes, loras.loras, data, asked, schedule)
    results = harness.Results(
        out,
        facts,
        base=base,
        measure="loss on dev rows of unseen adapters, nats a token, lower is better (means with "
        "intervals over rows, differences over tasks)",
        usual=asdict(USUAL),
        trained_on="a share of the others: " + ", ".join(trials.seen),
        rows_measured=len(trials.tasks),
    )
    table: list[dict] = []
    for variant in VARIANTS:
        for setting in SETTINGS:
            found = [trials.losses(variant, setting, seed) for seed in range(seeds)]
            uniform = trials.uniform(setting, k=variant.k)
            table.append(summarise(variant, setting, found, uniform=uniform, tasks=trials.tasks))
            row = table[-1]
            print(f"{row['name']:44} {row['mean']:.4f} {row['seeds']} {row['against']}", flush=True)
        results.write(rows=table)
