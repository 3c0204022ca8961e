"""The training loop of every kind of training: step, measure, checkpoint, stop, resume.

What is trained is a `Trainable`. The loss of step t is a function of the seed and of t alone, so a
resumed run ends with the numbers of an uninterrupted one. With patience a run ends when its dev
loss has stopped falling, and the best measured weights are kept.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from json import dumps
from math import inf, isnan
from pathlib import Path

import torch
from torch import Tensor, nn

from ramole_core.errors import RamoleError
from ramole_core.training.checkpoint import Progress, restore_checkpoint, save_checkpoint
from ramole_core.training.recipe import Schedule
from ramole_core.training.weights_folder import CHECKPOINT, weights_folder

Report = Callable[[Progress, int], None]
"""Called after every step with the progress and the number of steps in all."""


class Paused(Exception):
    """A run that reached its deadline; the same call resumes it."""


@dataclass(frozen=True)
class Trainable:
    """The interface of a kind of training."""

    name: str
    """The dev loss that patience compares."""
    parameters: Mapping[str, nn.Parameter]
    """Trained tensors, by name."""
    loss: Callable[[int], Tensor]
    """The loss of a step's batch."""
    dev_loss: Callable[[], Mapping[str, float]]
    """The dev loss under `name`, and any others beside it."""
    facts: Mapping[str, object]
    """All that determines the run: recipe, base, data. A checkpoint with others is refused."""
    epoch: int
    """Steps in which every row is read once."""
    save: Callable[[Path, Progress], None] | None = None
    """Writes the kept weights and their record into a folder; None: the caller does."""


@dataclass(frozen=True)
class TrainingRun:
    """One call of a training: output folder, observers, time limit."""

    out_dir: Path
    """The weights' folder; until the run ends, nothing new is in it but the checkpoint."""
    command: str = ""
    """The command line that repeats it, for the record."""
    report: Report = lambda progress, steps: None
    """Shows the progress."""
    deadline: float = inf
    """Time of `time.monotonic` at which the run pauses."""
    part: str = "state"
    """The checkpoint's name, where one folder has several."""

    @property
    def checkpoint(self) -> Path:
        """The checkpoint's file."""
        return self.out_dir / CHECKPOINT / f"{self.part}.safetensors"


def train(one: Trainable, schedule: Schedule, run: TrainingRun) -> Progress:
    """Train with AdamW until the schedule's end, and leave the weights that are kept in place.

    The dev loss is measured before the first step, every `evaluate_every` steps, and at the end.
    Raises Paused at the deadline, after one step at the least.
    """
    schedule = schedule.counted(one.epoch)
    state = _State(one, schedule, run)
    progress = state.progress
    started = time.monotonic() - progress.seconds
    if not progress.dev_losses:
        state.measure()
        progress.seconds = time.monotonic() - started
        run.report(progress, schedule.steps)
    while not state.ended:
        state.step()
        if progress.step == schedule.steps or progress.step % schedule.evaluate_every == 0:
            state.measure()
        progress.seconds = time.monotonic() - started
        late = time.monotonic() >= run.deadline
        if state.ended or late or progress.step % schedule.checkpoint_every == 0:
            state.save()
        run.report(progress, schedule.steps)
        if late and not state.ended:
            raise Paused
    state.keep()
    if one.save is not None:
        with weights_folder(run.out_dir) as folder:
            one.save(folder, progress)
    return progress


class _State:
    """Parameters, AdamW's moments, the best weights and the generator, as a checkpoint has them."""

    def __init__(self, one: Trainable, schedule: Schedule, run: TrainingRun):
        self._one, self._schedule, self._file = one, schedule, run.checkpoint
        self._optimizer = torch.optim.AdamW(
            one.parameters.values(), lr=schedule.learning_rate, weight_decay=schedule.weight_decay
        )
        self._facts = dumps({"schedule": asdict(schedule), **one.facts}, sort_keys=True)
        tensors, self.progress = restore_checkpoint(self._file, facts=self._facts)
        self._best = _under("best", tensors)
        if tensors:
            self._restore(tensors)

    @property
    def ended(self) -> bool:
        """Whether all steps are done, or patience ran out."""
        patience = self._schedule.patience
        stale = self.progress.stale(self._one.name) if patience else 0
        return self.progress.step >= self._schedule.steps or 0 < patience <= stale

    def step(self) -> None:
        """One step of the optimiser."""
        for group in self._optimizer.param_groups:
            group["lr"] = self._schedule.rate(self.progress.step)
        loss = self._one.loss(self.progress.step)
        self._optimizer.zero_grad(set_to_none=False)
        loss.backward()
        nn.utils.clip_grad_norm_(self._one.parameters.values(), 1.0)
        self._optimizer.step()
        self.progress.step += 1
        self.progress.train_losses.append(loss.item())
        if not self._best:  # else the best weights before it are kept
            self._check_finite()

    def measure(self) -> None:
        """Measure the dev loss, and keep the weights where it is the lowest."""
        losses = self._one.dev_loss()
        if self._schedule.patience and self._one.name not in losses:
            raise RamoleError(
                "Patience compares dev losses, and none is measured here; leave patience out."
            )
        self.progress.dev_losses.append({"step": float(self.progress.step), **losses})
        name = self._one.name
        if self._schedule.patience and not self.progress.stale(name) and not isnan(losses[name]):
            self._best = {n: p.detach().clone() for n, p in self._one.parameters.items()}

    def keep(self) -> None:
        """Restore the best measured weights; without patience keep the last ones."""
        self.progress.kept_step = self.progress.step
        if self._best:
            at = -1 - self.progress.stale(self._one.name)
            self.progress.kept_step = int(self.progress.dev_losses[at]["step"])
            self._fill(self._best)
        self._check_finite()

    def _check_finite(self) -> None:
        """Raise RamoleError where the weights are no numbers any more."""
        if not all(bool(p.isfinite().all()) for p in self._one.parameters.values()):
            raise RamoleError(
                f"The training diverged: after step {self.progress.step} its weights are not "
                "finite numbers. Nothing was kept; train again with a lower --learning-rate."
            )

    def save(self) -> None:
        """Write the checkpoint."""
        tensors: dict[str, Tensor] = {"generator": torch.get_rng_state()}
        tensors |= {f"best/{name}": tensor for name, tensor in self._best.items()}
        for name, parameter in self._one.parameters.items():
            tensors[f"parameter/{name}"] = parameter.detach()
            for moment, value in self._optimizer.state[parameter].items():
                tensors[f"{moment}/{name}"] = value.detach().clone()
        save_checkpoint(self._file, tensors, progress=self.progress, facts=self._facts)

    def _restore(self, tensors: Mapping[str, Tensor]) -> None:
        self._fill(_under("parameter", tensors))
        held = {m: _under(m, tensors) for m in ("step", "exp_avg", "exp_avg_sq")}
        state = {  # a parameter that no gradient has reached has no moments yet
            n: {moment: by_name[name] for moment, by_name in held.items()}
            for n, name in enumerate(self._one.parameters)
            if name in held["step"]
        }
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": state, "param_groups": groups})
        for name, parameter in self._one.parameters.items():
            if name in held["step"]:  # where a step does not reach it, its gradient is 0, not None
                parameter.grad = torch.zeros_like(parameter)
        torch.set_rng_state(tensors["generator"])

    @torch.no_grad()
    def _fill(self, tensors: Mapping[str, Tensor]) -> None:
        for name, parameter in self._one.parameters.items():
            parameter.copy_(tensors[name])


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under the prefix, by the rest of their names."""
    head = f"{prefix}/"
    return {name[len(head) :]: t for name, t in tensors.items() if name.startswith(head)}
