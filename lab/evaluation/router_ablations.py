"""What in the router's training matters: dropout, rank, share of the tasks; and how many are mixed.

    python -m lab.evaluation.router_ablations --data DATA

Every variant changes one thing of USUAL and trains it anew, once a seed. All are measured on the
dev rows of adapters that no variant was trained on, with the row's own adapter among the k and
without it (`router_table.py`), beside equal weights for the same k adapters, which are no training
at all. A trained gate and its losses are kept in WORK, so a stopped run goes on where it was.
"""

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from lab.evaluation.intervals import bootstrap, bootstrap_groups
from lab.evaluation.router_table import SETTINGS, measure_gates
from ramole_core.base.model import BaseModel
from ramole_core.base.shapes import read_shapes
from ramole_core.composition import Router, load_router
from ramole_core.errors import RamoleError
from ramole_core.settings import REPOSITORY, load_settings
from ramole_core.terminal.recorded_command import recorded_command
from ramole_core.training.card import versions
from ramole_core.training.configured_base import load_configured_base
from ramole_core.training.loop import Run
from ramole_core.training.method import train_method
from ramole_core.training.mixed_model import Loras, MixedModel, Shapes
from ramole_core.training.pool_loras import read_loras
from ramole_core.training.recipe import MethodRecipe, Schedule
from ramole_core.training.rows import Encoded, encode_rows, read_task

MODULE = "lab.evaluation.router_ablations"
MAX_TOKENS = 256
"""Of a measured row, prompt and answer."""
UNSEEN = "banking77,clinc_intent,common_gen,mbpp,nl2regex,scitail,sms_spam,wiki_split,word_segment"
"""The adapters that the router which ships was not trained on either."""
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
    ours = np.mean(found, axis=0).tolist()
    gap = bootstrap_groups(np.subtract(ours, uniform).tolist(), tasks)
    return {
        "group": variant.group,
        "name": f"{variant.name}, {HIDDEN[setting]}",
        **_rounded(asdict(bootstrap(ours))),
        "seeds": [round(float(np.mean(losses)), 4) for losses in found],
        "against": {"rival": "equal weights", **_rounded(asdict(gap))},
    }


def _rounded(numbers: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in numbers.items()}


class Trials:
    """Trains and measures what is not in the work folder yet."""

    def __init__(
        self,
        work: Path,
        *,
        base: BaseModel,
        shapes: Shapes,
        loras: Loras,
        data: Path,
        unseen: Sequence[str],
        rows: int,
        schedule: Schedule,
    ) -> None:
        self._work, self._base, self._shapes, self._loras = work, base, shapes, loras
        self._data, self._schedule = data, schedule
        self.seen = tuple(name for name in loras if name not in unseen)
        self._dev: dict[str, Sequence[Encoded]] = {
            name: encode_rows(base.tokenizer, read_task(data / name).dev, max_tokens=MAX_TOKENS)[
                :rows
            ]
            for name in unseen
        }

    @property
    def tasks(self) -> list[str]:
        """The task of each measured row."""
        return [name for name, rows in self._dev.items() for _ in rows]

    def losses(self, variant: Variant, setting: str, seed: int) -> Losses:
        """Under the variant's trained gate; one adapter has all the weight under any gate."""
        if variant.k == 1:
            return self.uniform(setting, k=1)
        return self._kept(
            f"{variant.trained}-k{variant.k}-{setting}-seed{seed}",
            lambda: self._measure(self._router(variant, seed), setting, k=variant.k),
        )

    def uniform(self, setting: str, *, k: int) -> Losses:
        """Under equal weights for the same adapters."""
        return self._kept(f"uniform-k{k}-{setting}", lambda: self._measure(None, setting, k=k))

    def _kept(self, name: str, make: Callable[[], Losses]) -> Losses:
        file = self._work / f"{name}.json"
        if not file.is_file():
            file.write_text(json.dumps(make()), encoding="utf-8")
        return json.loads(file.read_text(encoding="utf-8"))

    def _measure(self, router: Router | None, setting: str, *, k: int) -> Losses:
        model = MixedModel(
            self._base, loras={name: self._loras[name] for name in self._dev}, shapes=self._shapes
        )
        gate = router and router.to(device=self._base.device, dtype=self._base.dtype)
        try:
            found = measure_gates(
                model, self._dev, gates={"gate": [gate]}, setting=setting, seed=0, k=k
            )
        finally:
            model.close()
        return [loss for losses in found["gate"].values() for loss in losses]

    def _router(self, variant: Variant, seed: int) -> Router:
        folder = self._work / f"{variant.trained}-seed{seed}"
        if not (folder / "router.safetensors").is_file():
            names = draw_share(self.seen, variant.share, seed=seed)
            train_method(
                MethodRecipe(
                    "ramole",
                    {"rank": variant.rank, "alpha": 2.0 * variant.rank},
                    dropout=variant.dropout,
                    schedule=replace(self._schedule, seed=seed),
                ),
                loras={name: self._loras[name] for name in names},
                tasks=[read_task(self._data / name) for name in names],
                base=self._base,
                shapes=self._shapes,
                run=Run(folder),
            )
        return load_router(folder, shapes=self._shapes)


def main(
    data: Annotated[Path, typer.Option(help="Folder of task folders.")] = Path("data"),
    unseen: Annotated[str, typer.Option(help="Adapters no router is trained on.")] = UNSEEN,
    rows: Annotated[int, typer.Option(help="Dev rows of each of them.")] = 50,
    seeds: Annotated[int, typer.Option(help="Routers trained of each variant.")] = 2,
    steps: Annotated[int, typer.Option(help="Optimiser steps of a router.")] = 40,
    batch_rows: Annotated[int, typer.Option(help="Rows a step.")] = 8,
    learning_rate: Annotated[float, typer.Option(help="Peak learning rate.")] = 3e-3,
    max_tokens: Annotated[int, typer.Option(help="Longer training rows are left out.")] = 160,
    work: Annotated[Path, typer.Option(help="Where gates and losses are kept.")] = Path(
        "router_ablations"
    ),
    out: Annotated[Path, typer.Option(help="The JSON file.")] = (
        REPOSITORY / "results" / "router_ablations.json"
    ),
) -> None:
    """Train and measure every variant; the file is written after each."""
    settings = load_settings()
    base = load_configured_base()
    shapes = read_shapes(base.folder)
    pool = sorted(path.parent.name for path in settings.adapters_dir.glob("[!_]*/train.json"))
    measured = [name.strip() for name in unseen.split(",") if name.strip()]
    if unknown := [name for name in measured if name not in pool]:
        raise RamoleError(f"No adapter is named {unknown[0]!r}; choose of {', '.join(pool)}.")
    schedule = Schedule(
        steps=steps,
        batch_rows=batch_rows,
        learning_rate=learning_rate,
        max_tokens=max_tokens,
        evaluate_every=steps,
        checkpoint_every=steps,
        dev_rows=8 * len(pool),
    )
    work.mkdir(parents=True, exist_ok=True)
    trials = Trials(
        work,
        base=base,
        shapes=shapes,
        loras=read_loras(pool, settings=settings, shapes=shapes).loras,
        data=data,
        unseen=measured,
        rows=rows,
        schedule=schedule,
    )
    report: dict = {
        "command": recorded_command(MODULE),
        "date": date.today().isoformat(),
        "measure": "loss on dev rows of unseen adapters, nats a token, lower is better (means with "
        "intervals over rows, differences over tasks)",
        "base_checksum": base.checksum,
        "quantization": base.quantization,
        "versions": versions(),
        "schedule": asdict(schedule),
        "usual": asdict(USUAL),
        "unseen": measured,
        "trained_on": "a share of the others: " + ", ".join(trials.seen),
        "rows_measured": len(trials.tasks),
        "rows": [],
    }
    for variant in VARIANTS:
        for setting in SETTINGS:
            found = [trials.losses(variant, setting, seed) for seed in range(seeds)]
            uniform = trials.uniform(setting, k=variant.k)
            row = summarise(variant, setting, found, uniform=uniform, tasks=trials.tasks)
            report["rows"].append(row)
            print(f"{row['name']:44} {row['mean']:.4f} {row['seeds']} {row['against']}", flush=True)
        out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
