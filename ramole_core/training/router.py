"""Train the RouterLoRA: one A_r, B_r for each linear layer, everything else frozen.

    v_i = B_i A_i x,  q = A_r x,  k_i = B_r^T v_i,  alpha = softmax_i(<q, k_i> / sqrt(s))
    loss = -log p(answer | prompt) under y = W x + sum_i alpha_i v_i     (arXiv 2406.16989, 3.3)

All training tasks' LoRAs are loaded and whole ones dropped at random, at least two staying, so that
the gate must also make do without a row's own LoRA. B_r starts at 0 (a uniform gate, which still
has a gradient), A_r at random. The gate that is trained is the one that is served: the same plans
and the same mixed layers.
"""

import random
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from json import dumps
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel

from ramole_core.base.model import BaseModel, dequantised
from ramole_core.composition import Lora, ModuleRouter, Router, find_method, random_router
from ramole_core.errors import RamoleError
from ramole_core.layers import MixedInstallation, ModuleStack, install, stack_plans
from ramole_core.training.checkpoint import Progress
from ramole_core.training.loop import Report, train
from ramole_core.training.loss import answer_loss, row_losses
from ramole_core.training.recipe import RouterRecipe
from ramole_core.training.router_file import write_router
from ramole_core.training.rows import BatchOrder, Encoded, Task, collate, encode_rows

Loras = Mapping[str, Mapping[str, Lora]]
"""Adapters by name, each its LoRA by module path."""
Shapes = Mapping[str, tuple[int, int]]
"""Module path -> (i, o)."""


def train_router(
    recipe: RouterRecipe,
    *,
    loras: Loras,
    tasks: Sequence[Task],
    base: BaseModel,
    shapes: Shapes,
    out_dir: Path,
    command: str = "",
    report: Report = lambda progress, steps: None,
) -> Progress:
    """Train a router over `loras` on the rows of `tasks`, one LoRA a task, and write `out_dir`.

    Until the run ends, `out_dir` holds nothing new but `.checkpoint/`; calling again with the same
    recipe goes on from there. Raises RamoleError where fewer than two adapters are given.
    """
    if len(loras) < 2:
        raise RamoleError(
            f"A router chooses between adapters, and only {len(loras)} was given; name two or more."
        )
    model = MixedModel(base, loras=loras, shapes=shapes)
    weights = fresh_router(shapes, recipe)
    schedule = recipe.schedule
    rows = mixed_rows(base, tasks, recipe)
    dev = [
        row
        for task in tasks
        for row in encode_rows(
            base.tokenizer,
            task.dev[: max(1, schedule.dev_rows // len(tasks))],
            max_tokens=schedule.max_tokens,
        )
    ]
    order = BatchOrder(rows, batch_rows=schedule.batch_rows, seed=schedule.seed)
    controls = measure_controls(model, dev, rank=recipe.rank, seed=schedule.seed)

    def loss_of(step: int) -> torch.Tensor:
        names = keep_some(tuple(loras), recipe.dropout, seed=schedule.seed, step=step)
        with model.gated_by(folded(weights, recipe), names=names):
            return answer_loss(model.plain, collate(order(step)))

    def measure() -> dict[str, float]:
        with torch.no_grad(), model.gated_by(folded(weights, recipe), names=tuple(loras)):
            return {"router": row_losses(model.plain, dev).mean().item(), **controls}

    try:
        progress = train(
            weights,
            schedule=schedule,
            loss_of=loss_of,
            measure=measure,
            checkpoint=out_dir / ".checkpoint" / "state.safetensors",
            recipe=dumps(
                {**asdict(recipe), "adapters": list(loras), "base": base.checksum}, sort_keys=True
            ),
            report=report,
        )
    finally:
        model.close()
    write_router(
        out_dir,
        folded(weights, recipe),
        recipe=recipe,
        trained_on=tuple(loras),
        base=base,
        progress=progress,
        command=command,
    )
    shutil.rmtree(out_dir / ".checkpoint", ignore_errors=True)
    return progress


class MixedModel:
    """A dequantised base with mixed layers in it, and adapters ready to be mixed."""

    def __init__(self, base: BaseModel, *, loras: Loras, shapes: Shapes) -> None:
        self.plain: PreTrainedModel = dequantised(base)
        self._loras = {
            name: {
                path: Lora(A=m.A.to(base.device, base.dtype), B=m.B.to(base.device, base.dtype))
                for path, m in modules.items()
            }
            for name, modules in loras.items()
        }
        self.names = tuple(loras)
        self.shapes = shapes
        self._installed: MixedInstallation = install(self.plain, shapes)

    @contextmanager
    def gated_by(
        self, router: Router | None, *, names: Sequence[str], method: str = "ramole"
    ) -> Iterator[None]:
        """Forwards inside mix these adapters in every row; `None` is the uniform gate.

        The gradient reaches the router's tensors.
        """
        with self._installed.mixer.mixing(self._stacks(router, names, method)):
            yield

    def _stacks(
        self, router: Router | None, names: Sequence[str], method: str
    ) -> dict[str, ModuleStack]:
        stacks = {}
        for path in self.shapes:
            plan = find_method(method).plan(
                [self._loras[name].get(path) for name in names],
                router=None if router is None else router.modules.get(path),
            )
            stack = stack_plans([plan], k=len(names))
            if stack is not None:
                stacks[path] = stack
        return stacks

    def close(self) -> None:
        """Take the mixed layers out again."""
        self._installed.remove()


def fresh_router(shapes: Shapes, recipe: RouterRecipe) -> dict[str, nn.Parameter]:
    """`<path>.A_r` [s, i] uniform as PEFT initialises A, `<path>.B_r` [o, s] zero; fp32."""
    generator = torch.Generator().manual_seed(recipe.schedule.seed)
    weights = {}
    for path, (i, o) in shapes.items():
        A = (torch.rand(recipe.rank, i, generator=generator) * 2 - 1) * i**-0.5
        weights[f"{path}.A_r"] = nn.Parameter(A)
        weights[f"{path}.B_r"] = nn.Parameter(torch.zeros(o, recipe.rank))
    return weights


def folded(weights: Mapping[str, torch.Tensor], recipe: RouterRecipe) -> Router:
    """The router these weights make, alpha/s folded into B_r; differentiable."""
    scale = recipe.alpha / recipe.rank
    paths = [name.removesuffix(".A_r") for name in weights if name.endswith(".A_r")]
    modules = {
        path: ModuleRouter(A=weights[f"{path}.A_r"], B=weights[f"{path}.B_r"] * scale)
        for path in paths
    }
    return Router(modules, recipe.rank, "none")


def keep_some(names: Sequence[str], dropout: float, *, seed: int, step: int) -> tuple[str, ...]:
    """The LoRAs that take part in a step: each stays with chance 1 - dropout, at least two do."""
    chance = random.Random(f"{seed}/{step}")
    order = chance.sample(list(names), len(names))
    kept = [name for name in order if chance.random() >= dropout]
    kept += [name for name in order if name not in kept][: max(0, 2 - len(kept))]
    return tuple(name for name in names if name in kept)


def mixed_rows(base: BaseModel, tasks: Sequence[Task], recipe: RouterRecipe) -> list[Encoded]:
    """The training rows of all tasks, as many of each as the smallest one has."""
    schedule = recipe.schedule
    encoded = [
        encode_rows(base.tokenizer, task.train, max_tokens=schedule.max_tokens) for task in tasks
    ]
    count = min(len(rows) for rows in encoded)
    chance = random.Random(schedule.seed)
    return [row for rows in encoded for row in chance.sample(rows, count)]


def measure_controls(
    model: MixedModel, dev: Sequence[Encoded], *, rank: int, seed: int
) -> dict[str, float]:
    """Dev loss under the uniform gate and under a frozen random router, all LoRAs loaded."""
    names = model.names
    losses: dict[str, float] = {}
    gates: dict[str, Callable[[], Router | None]] = {
        "uniform": lambda: None,
        "random": lambda: random_router(model.shapes, rank=rank, seed=seed),
    }
    for name, gate in gates.items():
        with torch.no_grad(), model.gated_by(gate(), names=names):
            losses[name] = row_losses(model.plain, dev).mean().item()
    return losses
