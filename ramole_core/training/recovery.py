"""Train the adapters of `ca_lora`: each one further on the compressed base, with its bypass.

    loss = CE(answer)  +  lambda * mean |h - h_teacher|^2          (CA-LoRA, arXiv 2307.07705, 3.4)

h are the last hidden states of the compressed base with the adapter and its bypass, h_teacher those
of the base before it was compressed with the adapter as it was uploaded; in fp32, over all tokens
of the rows and none of the padding. Adapters are trained one after another, each on its own task's
rows and with a checkpoint of its own, so a run that was killed goes on where it was.
"""

import shutil
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from json import dumps
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ramole_core.base.model import BaseModel
from ramole_core.composition import Ask, Candidate, Trained, decide, find_method
from ramole_core.composition.ca_lora import fold, inherit
from ramole_core.errors import RamoleError
from ramole_core.layers.plain import place
from ramole_core.methods import complete_options
from ramole_core.training.checkpoint import Progress
from ramole_core.training.loop import Report, train
from ramole_core.training.loss import last_hidden, row_losses, token_losses
from ramole_core.training.mixed_model import Loras, MixedModel, Shapes, learning
from ramole_core.training.recipe import MethodRecipe
from ramole_core.training.rows import BatchOrder, Encoded, Task, collate, encode_rows
from ramole_core.training.weights_file import write_weights


def train_recovery(
    recipe: MethodRecipe,
    *,
    loras: Loras,
    tasks: Sequence[Task],
    base: BaseModel,
    shapes: Shapes,
    out_dir: Path,
    checksums: Mapping[str, str] | None = None,
    teacher: BaseModel | None = None,
    command: str = "",
    report: Report = lambda progress, steps: None,
) -> Progress:
    """Train `loras` further, each on the rows of its task, and write `out_dir`.

    `teacher` is the base before it was compressed; by default `base` without its quantisation.
    Until the run ends, `out_dir` holds nothing new but `.checkpoint/`; calling again with the same
    recipe goes on from there. Raises RamoleError where two adapters have one content.
    """
    known = [(name, (checksums or {}).get(name, name)) for name in loras]
    if len({checksum for _, checksum in known}) < len(known):
        raise RamoleError(f"Of {', '.join(loras)}, two have the same content; name each once.")
    teacher = teacher or replace(base, quantization="none")
    whole, record = Progress(), []
    tensors: dict[str, Tensor] = {}
    with Recovery(base, teacher, loras=loras, shapes=shapes) as models:
        for n, (task, (name, checksum)) in enumerate(zip(tasks, known, strict=True)):
            student, done = models.train(
                recipe,
                name,
                checksum,
                task=task,
                checkpoint=out_dir / ".checkpoint" / f"{n}.safetensors",
                report=report,
            )
            tensors |= {f"{n}{key[1:]}": tensor for key, tensor in student.items()}
            record.append({"name": name, "checksum": checksum, "teacher": teacher.quantization})
            whole.step += done.step
            whole.seconds += done.seconds
            whole.train_losses += done.train_losses
            whole.dev_losses += done.dev_losses
    trained = Trained(tensors, config={"adapters": record, "teacher_checksum": teacher.checksum})
    write_weights(out_dir, trained, recipe=recipe, base=base, progress=whole, command=command)
    shutil.rmtree(out_dir / ".checkpoint", ignore_errors=True)
    return whole


@dataclass(frozen=True)
class _Rows:
    """The rows of one task."""

    train: list[Encoded]
    dev: list[Encoded]


class Recovery:
    """The compressed base that learns, and the uncompressed one that teaches; both stay frozen."""

    def __init__(self, base: BaseModel, teacher: BaseModel, *, loras: Loras, shapes: Shapes):
        self._base, self._taught_by, self._loras = base, teacher.checksum, loras
        self.student = MixedModel(base, loras=loras, shapes=shapes)
        self.teacher = MixedModel(teacher, loras=loras, shapes=shapes)

    def close(self) -> None:
        """Take the mixed layers out again."""
        self.student.close()
        self.teacher.close()

    def __enter__(self) -> "Recovery":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def train(
        self,
        recipe: MethodRecipe,
        name: str,
        checksum: str,
        *,
        task: Task,
        checkpoint: Path,
        bypass: bool = True,
        report: Report = lambda progress, steps: None,
    ) -> tuple[dict[str, Tensor], Progress]:
        """Train one adapter; its tensors as `decide` reads them, named `0/...`, and its progress.

        `bypass` False trains the LoRA alone, a control. A dev loss is measured of the student under
        the adapter's name, and of the teacher.
        """
        schedule, most = recipe.schedule, recipe.schedule.max_tokens
        tokenizer = self._base.tokenizer
        rows = _Rows(
            encode_rows(tokenizer, task.train, max_tokens=most),
            encode_rows(tokenizer, task.dev[: schedule.dev_rows], max_tokens=most),
        )
        order = BatchOrder(rows.train, batch_rows=schedule.batch_rows, seed=schedule.seed)
        weights = self.start(recipe, name)
        if not bypass:
            weights = {n: t for n, t in weights.items() if not n.endswith((".a1", ".a2"))}
        taught = self._teacher_loss(name, rows.dev)

        def measure() -> dict[str, float]:
            found = row_losses(
                self.student.plain,
                rows.dev,
                mixing=lambda _: self.mixing(fold(weights, recipe.settings), name, checksum),
            )
            return {name: found.mean().item(), "teacher": taught}

        progress = train(
            weights,
            schedule=schedule,
            loss_of=lambda step: self.loss(weights, recipe, name, checksum, rows=order(step)),
            measure=measure,
            checkpoint=checkpoint,
            recipe=dumps(
                {
                    **asdict(recipe),
                    "adapter": [name, checksum],
                    "base": [self._base.checksum, self._base.quantization],
                    "teacher": self._taught_by,
                    "bypass": bypass,
                },
                sort_keys=True,
            ),
            report=report,
        )
        found = fold({key: tensor.detach() for key, tensor in weights.items()}, recipe.settings)
        return found, progress

    def start(self, recipe: MethodRecipe, name: str) -> dict[str, nn.Parameter]:
        """The inherited LoRA and its bypass, in float32 on the base's device; the seed decides."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.schedule.seed)
            tensors = inherit(self._loras[name], self.student.sites, recipe.settings)
        device = self.student.plain.device
        return {key: nn.Parameter(tensor.float().to(device)) for key, tensor in tensors.items()}

    def loss(
        self,
        weights: Mapping[str, Tensor],
        recipe: MethodRecipe,
        name: str,
        checksum: str,
        *,
        rows: Sequence[Encoded],
    ) -> Float[Tensor, ""]:
        """CE + lambda MSE of one batch."""
        batch, settings = collate(rows), recipe.settings
        with self.mixing(fold(weights, settings), name, checksum):
            hidden = last_hidden(self.student.plain, batch)
        loss = token_losses(self.student.plain, batch, hidden).mean()
        if not settings["distil"]:
            return loss
        with torch.no_grad(), self.teacher.gated_by(None, names=[(name,)]):
            aim = last_hidden(self.teacher.plain, batch)
        return loss + settings["distil"] * distance(hidden, aim, lengths=[len(r) for r in rows])

    def mixing(
        self, tensors: Mapping[str, Tensor], name: str, checksum: str
    ) -> AbstractContextManager[None]:
        """The student's forwards inside are those that `ca_lora` decides with these tensors, named
        as `decide` reads them; the gradient reaches them."""
        method, sites = find_method("ca_lora"), self.student.sites
        config = {"adapters": [{"name": name, "checksum": checksum}]}
        trained = Trained(tensors, config=config)
        uploaded = Candidate(name, float("nan"), checksum, lambda: self._loras[name])
        (one,) = method.bring([uploaded], trained)
        adapter = learning(one, sites)
        ask = Ask((adapter,), sites, complete_options("ca_lora", None), None, trained)
        return self.student.mixer.mixing([place(decide(method, ask), [adapter.loras], sites)])

    def _teacher_loss(self, name: str, dev: Sequence[Encoded]) -> float:
        found = row_losses(
            self.teacher.plain,
            dev,
            mixing=lambda _: self.teacher.gated_by(None, names=[(name,)]),
        )
        return found.mean().item()


def distance(
    hidden: Float[Tensor, "b l d"], aim: Float[Tensor, "b l d"], *, lengths: Sequence[int]
) -> Float[Tensor, ""]:
    """The mean square of the difference in fp32; `lengths`: tokens of each row without padding."""
    ends = torch.tensor(lengths, device=hidden.device)[:, None]
    real = torch.arange(hidden.shape[1], device=hidden.device) < ends
    return (hidden.float() - aim.float())[real].square().mean()
