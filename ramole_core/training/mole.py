"""Train `llava_mole`: experts, their routers and the attention's LoRA, at once, on mixed tasks.

    loss = CE(answer)  +  beta * mean over blocks of sum_j mean(p_j) mean([e = j])

(LLaVA-MoLE, arXiv 2401.16160, section 3.2.) The rows are those of all tasks, as many of each; the
means of the balance loss are over all tokens but the padding. With one expert it is a plain LoRA in
every linear layer, and the balance loss is a constant.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import asdict

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ramole_core.base.model import BaseModel
from ramole_core.composition import Trained
from ramole_core.composition.llava_mole import Hook, balance, begin, decision_in_training, fold
from ramole_core.training.checkpoint import Progress
from ramole_core.training.loop import Trainable, TrainingRun, train
from ramole_core.training.loss import row_losses, token_losses
from ramole_core.training.material import Material, dev_rows, identity, mixed_rows
from ramole_core.training.mixed_model import MixedModel, Shapes
from ramole_core.training.recipe import MethodRecipe
from ramole_core.training.rows import BatchOrder, Encoded, Task, collate
from ramole_core.training.weights_folder import weights_folder, write_weights

METHOD = "llava_mole"


def train_mole(recipe: MethodRecipe, given: Material, run: TrainingRun) -> Progress:
    """Train on the rows of the tasks mixed, and write the folder; LoRAs of the pool are not
    used."""
    with closing(MoleModel(given.base, given.shapes)) as model:
        tensors, progress = model.train(recipe, given.tasks, run=run)
    trained = Trained(tensors, config={"data": [task.name for task in given.tasks]})
    with weights_folder(run.out_dir) as folder:
        write_weights(folder, trained, recipe, base=given.base, progress=progress, run=run)
    return progress


class MoleModel(MixedModel):
    """The frozen base with plain mixed layers and the trained adapters alone."""

    def __init__(self, base: BaseModel, shapes: Shapes):
        super().__init__(base, loras={}, shapes=shapes)
        self._base = base

    def train(
        self, recipe: MethodRecipe, tasks: Sequence[Task], *, run: TrainingRun
    ) -> tuple[dict[str, Tensor], Progress]:
        """The tensors as `decide` reads them, and the run's progress; the dev loss is measured of
        each task and, as `llava_mole`, of all rows."""
        schedule, settings = recipe.schedule, recipe.settings
        dev = dev_rows(self._base, tasks, schedule)
        order = BatchOrder(mixed_rows(self._base, tasks, schedule), schedule)
        weights = self.start(recipe)

        def dev_loss() -> dict[str, float]:
            with self.trained(fold(weights, settings)):
                losses = row_losses(self.plain, dev)
            each = {METHOD: losses.mean().item()}
            for task in tasks:
                own = torch.tensor([row.task == task.name for row in dev])
                each[task.name] = losses[own].mean().item()
            return each

        one = Trainable(
            name=METHOD,
            parameters=weights,
            loss=lambda step: self.loss(weights, recipe, order(step)),
            dev_loss=dev_loss,
            facts={"recipe": asdict(recipe), **identity(self._base, tasks)},
            epoch=order.epoch,
        )
        progress = train(one, schedule, run)
        return fold({name: t.detach() for name, t in weights.items()}, settings), progress

    def start(self, recipe: MethodRecipe) -> dict[str, nn.Parameter]:
        """The tensors at their start; the seed decides."""
        return self.drawn(lambda: begin(self.sites, recipe.settings), seed=recipe.schedule.seed)

    def loss(
        self, weights: Mapping[str, Tensor], recipe: MethodRecipe, rows: Sequence[Encoded]
    ) -> Float[Tensor, ""]:
        """CE + beta times the balance of one batch."""
        batch, seen = collate(rows), dict[str, Tensor]()
        with self.trained(fold(weights, recipe.settings), hook=seen.__setitem__):
            loss = token_losses(self.plain, batch).mean()
        real = batch.real
        even = torch.stack([balance(p[real.to(p.device)]) for p in seen.values()]).mean()
        return loss + recipe.settings["balance"] * even

    def trained(
        self, tensors: Mapping[str, Tensor], *, hook: Hook | None = None
    ) -> AbstractContextManager[None]:
        """Mix the forwards inside by `llava_mole` with these tensors, named as `decide` reads them;
        they get gradients. `hook` gets each router's probabilities."""
        trained = Trained(tensors)
        return self.bringing(
            METHOD, trained, by=lambda ask: decision_in_training(trained, ask, hook=hook)
        )
