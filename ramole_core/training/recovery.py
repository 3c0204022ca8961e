"""Train the adapters of `ca_lora`: each one further on the compressed base, with its bypass.

    loss = CE(answer)  +  lambda * mean |h - h_teacher|^2          (CA-LoRA, arXiv 2307.07705, 3.4)

h are the last hidden states of the compressed base with the adapter and its bypass, h_teacher those
of the base before it was compressed with the adapter as it was uploaded; in fp32, over all tokens
of the rows and none of the padding. Adapters are trained one after another, each on its own task's
rows and with a checkpoint of its own, so a run that was killed goes on where it was.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import asdict, fields, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ramole_core.base.model import BaseModel
from ramole_core.composition import Candidate, Trained
from ramole_core.composition.ca_lora import fold, inherit
from ramole_core.training.checkpoint import Progress
from ramole_core.training.loop import Trainable, TrainingRun, train
from ramole_core.training.loss import last_hidden, row_losses, token_losses
from ramole_core.training.material import Material, identity
from ramole_core.training.mixed_model import Loras, MixedModel, Shapes
from ramole_core.training.recipe import MethodRecipe
from ramole_core.training.rows import BatchOrder, Encoded, Task, collate, encode_rows
from ramole_core.training.weights_folder import weights_folder, write_weights

METHOD = "ca_lora"


def train_recovery(recipe: MethodRecipe, given: Material, run: TrainingRun) -> Progress:
    """Train the adapters further, each on the rows of its task, and write the folder; the teacher
    is the base without its quantisation."""
    base, teacher = given.base, replace(given.base, quantization="none")
    whole, record = Progress(), []
    tensors: dict[str, Tensor] = {}
    models = Recovery(
        base, teacher, loras=given.loras, shapes=given.shapes, checksums=dict(given.known)
    )
    with closing(models):
        for n, (task, (name, checksum)) in enumerate(zip(given.tasks, given.known, strict=True)):
            student, done = models.train(recipe, name, task=task, run=replace(run, part=str(n)))
            tensors |= {f"{n}{key[1:]}": tensor for key, tensor in student.items()}
            taught = {"teacher": teacher.quantization, "kept_step": done.kept_step}
            record.append({"name": name, "checksum": checksum, **taught})
            for part in fields(Progress):
                setattr(whole, part.name, getattr(whole, part.name) + getattr(done, part.name))
    trained = Trained(tensors, config={"adapters": record, "teacher_checksum": teacher.checksum})
    with weights_folder(run.out_dir) as folder:
        write_weights(folder, trained, recipe, base=base, progress=whole, run=run)
    return whole


class Recovery:
    """The compressed student base and the uncompressed teacher; both frozen."""

    def __init__(
        self,
        base: BaseModel,
        teacher: BaseModel,
        *,
        loras: Loras,
        shapes: Shapes,
        checksums: Mapping[str, str],
    ):
        self._base, self._taught_by = base, teacher.checksum
        self._loras, self._checksums = loras, checksums
        self.student = MixedModel(base, loras=loras, shapes=shapes)
        self.teacher = MixedModel(teacher, loras=loras, shapes=shapes)

    def close(self) -> None:
        """Remove the mixed layers."""
        self.student.close()
        self.teacher.close()

    def train(
        self, recipe: MethodRecipe, name: str, *, task: Task, run: TrainingRun, bypass: bool = True
    ) -> tuple[dict[str, Tensor], Progress]:
        """Train one adapter; its tensors as `decide` reads them, named `0/...`, and its progress.

        `bypass` False trains the LoRA alone, a control. A dev loss is measured of the student under
        the adapter's name, and of the teacher.
        """
        schedule, tokenizer = recipe.schedule, self._base.tokenizer
        most = schedule.max_tokens
        dev = encode_rows(tokenizer, task.dev[: schedule.dev_rows], max_tokens=most)
        order = BatchOrder(encode_rows(tokenizer, task.train, max_tokens=most), schedule)
        weights = self.start(recipe, name)
        if not bypass:
            weights = {n: t for n, t in weights.items() if not n.endswith((".a1", ".a2"))}
        with self.teacher.gated_by(None, names=[(name,)]):
            taught = row_losses(self.teacher.plain, dev).mean().item()

        def dev_loss() -> dict[str, float]:
            with self.mixing(fold(weights, recipe.settings), name):
                found = row_losses(self.student.plain, dev)
            return {name: found.mean().item(), "teacher": taught}

        one = Trainable(
            name=name,
            parameters=weights,
            loss=lambda step: self.loss(weights, recipe, name, rows=order(step)),
            dev_loss=dev_loss,
            facts={
                "recipe": asdict(recipe),
                "adapter": [name, self._checksums[name]],
                "teacher": self._taught_by,
                "bypass": bypass,
                **identity(self._base, [task]),
            },
            epoch=order.epoch,
        )
        progress = train(one, schedule, run)
        found = fold({key: tensor.detach() for key, tensor in weights.items()}, recipe.settings)
        return found, progress

    def start(self, recipe: MethodRecipe, name: str) -> dict[str, nn.Parameter]:
        """The inherited LoRA and its bypass; the seed decides."""
        return self.student.drawn(
            lambda: inherit(self._loras[name], self.student.sites, recipe.settings),
            seed=recipe.schedule.seed,
        )

    def loss(
        self,
        weights: Mapping[str, Tensor],
        recipe: MethodRecipe,
        name: str,
        *,
        rows: Sequence[Encoded],
    ) -> Float[Tensor, ""]:
        """CE + lambda MSE of one batch."""
        batch, settings = collate(rows), recipe.settings
        with self.mixing(fold(weights, settings), name):
            hidden = last_hidden(self.student.plain, batch)
        loss = token_losses(self.student.plain, batch, hidden).mean()
        if not settings["distil"]:
            return loss
        with torch.no_grad(), self.teacher.gated_by(None, names=[(name,)]):
            aim = last_hidden(self.teacher.plain, batch)
        return loss + settings["distil"] * distance(hidden, aim, real=batch.real.to(aim.device))

    def mixing(self, tensors: Mapping[str, Tensor], name: str) -> AbstractContextManager[None]:
        """Mix the student's forwards inside by `ca_lora` with these tensors, named as `decide`
        reads them; they get gradients."""
        checksum = self._checksums[name]
        config = {"adapters": [{"name": name, "checksum": checksum}]}
        uploaded = Candidate(name, float("nan"), checksum, lambda: self._loras[name])
        return self.student.bringing(METHOD, Trained(tensors, config=config), uploaded=[uploaded])


def distance(
    hidden: Float[Tensor, "b l d"], aim: Float[Tensor, "b l d"], *, real: Bool[Tensor, "b l"]
) -> Float[Tensor, ""]:
    """The mean square of the difference in fp32, over the `real` tokens, those that are no
    padding."""
    return (hidden.float() - aim.float())[real].square().mean()
