"""Train `llava_mole`: experts, their routers and the attention's LoRA, at once, on mixed tasks.

    loss = CE(answer)  +  beta * mean over blocks of sum_j mean(p_j) mean([e = j])

(LLaVA-MoLE, arXiv 2401.16160, section 3.2.) The rows are those of all tasks, as many of each; the
means of the balance loss are over all tokens but the padding. With one expert it is a plain LoRA in
every linear layer, and the balance loss is a constant.
"""

import shutil
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from json import dumps
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ramole_core.base.model import BaseModel
from ramole_core.composition import Ask, Trained, find_method
from ramole_core.composition.llava_mole import Listen, balance, begin, decision_of, fold
from ramole_core.layers.plain import place
from ramole_core.methods import complete_options
from ramole_core.training.checkpoint import Progress
from ramole_core.training.loop import Report, train
from ramole_core.training.loss import row_losses, token_losses
from ramole_core.training.mixed_model import Loras, MixedModel, Shapes, learning
from ramole_core.training.mixture import dev_rows, mixed_rows
from ramole_core.training.recipe import MethodRecipe
from ramole_core.training.rows import BatchOrder, Encoded, Task, collate
from ramole_core.training.weights_file import write_weights

METHOD = "llava_mole"


def train_mole(
    recipe: MethodRecipe,
    *,
    tasks: Sequence[Task],
    base: BaseModel,
    shapes: Shapes,
    out_dir: Path,
    loras: Loras | None = None,
    checksums: Mapping[str, str] | None = None,
    command: str = "",
    report: Report = lambda progress, steps: None,
) -> Progress:
    """Train on the rows of `tasks` mixed, and write `out_dir`; `loras` of the pool are not used.

    Until the run ends, `out_dir` holds nothing new but `.checkpoint/`; calling again with the same
    recipe goes on from there.
    """
    model = MoleModel(base, shapes)
    try:
        checkpoint = out_dir / ".checkpoint" / "state.safetensors"
        tensors, progress = model.train(recipe, tasks, checkpoint=checkpoint, report=report)
    finally:
        model.close()
    trained = Trained(tensors, config={"data": [task.name for task in tasks]})
    write_weights(out_dir, trained, recipe=recipe, base=base, progress=progress, command=command)
    shutil.rmtree(out_dir / ".checkpoint", ignore_errors=True)
    return progress


class MoleModel:
    """The base with plain mixed layers, and no adapters but those that are learnt; it is frozen."""

    def __init__(self, base: BaseModel, shapes: Shapes):
        self._base = base
        self._model = MixedModel(base, loras={}, shapes=shapes)
        self.plain = self._model.plain

    def close(self) -> None:
        """Take the mixed layers out again."""
        self._model.close()

    def train(
        self,
        recipe: MethodRecipe,
        tasks: Sequence[Task],
        *,
        checkpoint: Path,
        report: Report = lambda progress, steps: None,
    ) -> tuple[dict[str, Tensor], Progress]:
        """The tensors as `decide` reads them, and the run's progress; the dev loss is measured of
        each task and, as `llava_mole`, of all rows."""
        schedule, settings = recipe.schedule, recipe.settings
        rows, dev = mixed_rows(self._base, tasks, recipe), dev_rows(self._base, tasks, recipe)
        order = BatchOrder(rows, batch_rows=schedule.batch_rows, seed=schedule.seed)
        weights = self.start(recipe)

        def measure() -> dict[str, float]:
            mixing = self.mixing(fold(weights, settings))
            with mixing:
                losses = row_losses(self.plain, dev)
            each = {METHOD: losses.mean().item()}
            for task in tasks:
                own = torch.tensor([row.task == task.name for row in dev])
                each[task.name] = losses[own].mean().item()
            return each

        progress = train(
            weights,
            schedule=schedule,
            loss_of=lambda step: self.loss(weights, recipe, order(step)),
            measure=measure,
            checkpoint=checkpoint,
            recipe=dumps(
                {
                    **asdict(recipe),
                    "tasks": [task.name for task in tasks],
                    "base": [self._base.checksum, self._base.quantization],
                },
                sort_keys=True,
            ),
            report=report,
        )
        return fold({name: t.detach() for name, t in weights.items()}, settings), progress

    def start(self, recipe: MethodRecipe) -> dict[str, nn.Parameter]:
        """The tensors at their start, in float32 on the base's device; the seed decides."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.schedule.seed)
            tensors = begin(self._model.sites, recipe.settings)
        device = self.plain.device
        return {name: nn.Parameter(tensor.float().to(device)) for name, tensor in tensors.items()}

    def loss(
        self, weights: Mapping[str, Tensor], recipe: MethodRecipe, rows: Sequence[Encoded]
    ) -> Float[Tensor, ""]:
        """CE + beta times the balance of one batch."""
        batch, seen = collate(rows), dict[str, Tensor]()
        with self.mixing(fold(weights, recipe.settings), listen=seen.__setitem__):
            loss = token_losses(self.plain, batch).mean()
        ends = torch.tensor([len(row) for row in rows])[:, None]
        real = torch.arange(batch.ids.shape[1]) < ends
        even = torch.stack([balance(p[real.to(p.device)]) for p in seen.values()]).mean()
        return loss + recipe.settings["balance"] * even

    def mixing(
        self, tensors: Mapping[str, Tensor], *, listen: Listen | None = None
    ) -> AbstractContextManager[None]:
        """Forwards inside are those that `llava_mole` decides with these tensors, named as `decide`
        reads them; the gradient reaches them. `listen` is told what the routers say."""
        trained, sites = Trained(tensors), self._model.sites
        own = find_method(METHOD).bring((), trained)
        adapters = tuple(learning(one, sites) for one in own)
        ask = Ask(adapters, sites, complete_options(METHOD, None), None, trained)
        decision = decision_of(trained, ask, listen=listen)
        mix = place(decision, [adapter.loras for adapter in adapters], sites)
        return self._model.mixer.mixing([mix])
