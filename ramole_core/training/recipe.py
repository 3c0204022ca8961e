"""Recipes: all settings of a training run, frozen and checked at construction.

A field whose type is `Annotated` with its help is an option of the training commands
(`options.py`), of its own name or of the one behind the help.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import ceil, cos, inf, pi
from typing import Annotated

from ramole_core.errors import RamoleError
from ramole_core.methods import Value, find_row
from ramole_core.retrieval.tuning import Window

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "down_proj")
COUNTS = {
    "steps": "--steps",
    "batch_rows": "--batch-rows",
    "max_tokens": "--max-tokens",
    "evaluate_every": "--measure-every",
    "checkpoint_every": "checkpoint_every",
    "dev_rows": "--dev-rows",
}
"""Fields of a schedule that are at least 1, by their options' names."""


@dataclass(frozen=True)
class Schedule:
    """Length and learning rate of a run, for every kind of training."""

    steps: Annotated[int, "Optimiser steps."] = 80
    batch_rows: Annotated[int, "Rows a step."] = 16
    learning_rate: Annotated[float, "Peak learning rate."] = 1.5e-3
    """Of AdamW: linear warm-up, then a cosine down to a tenth."""
    warmup: int = 6
    """Steps of linear warm-up."""
    weight_decay: float = 0.0
    """Decoupled weight decay."""
    seed: Annotated[int, "Seed of weights, order and every draw."] = 0
    max_tokens: Annotated[int, "Longer rows are left out."] = 224
    """Of prompt and answer together."""
    evaluate_every: Annotated[int, "Steps between two dev losses.", "--measure-every"] = 20
    checkpoint_every: int = 20
    """Steps between two checkpoints."""
    dev_rows: Annotated[int, "Rows that the dev loss is measured on."] = 50
    epochs: float = 0.0
    """Readings of all rows, at most; above 0 it takes the place of `steps`."""
    patience: Annotated[
        int,
        "End after so many measurements without a lower dev loss, and keep the best measured "
        "weights; 0: do all steps, and keep the last.",
    ] = 0

    def __post_init__(self) -> None:
        for name, said in COUNTS.items():
            if (given := getattr(self, name)) < 1:
                raise RamoleError(f"{said} is {given}; it must be at least 1: raise it.")
        if not 0 < self.learning_rate < 1:
            raise RamoleError(
                f"The learning rate is {self.learning_rate}; expected a number between 0 and 1, "
                "usually 1e-4 to 3e-3."
            )
        if self.patience < 0 or self.epochs < 0:
            raise RamoleError(
                f"patience {self.patience} and epochs {self.epochs} must be 0 or more: raise them."
            )

    def counted(self, epoch: int) -> "Schedule":
        """The schedule with its epochs counted in steps; `epoch` is the steps of one."""
        return replace(self, steps=ceil(self.epochs * epoch)) if self.epochs else self

    def rate(self, step: int) -> float:
        """The learning rate of a step (the first is 0)."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.learning_rate * (0.1 + 0.9 * 0.5 * (1 + cos(pi * done)))


@dataclass(frozen=True)
class AdapterRecipe:
    """A LoRA adapter for one task."""

    name: str
    """The adapter's name; by default its data folder's."""
    rank: int = 8
    """r of the LoRA."""
    alpha: float = 16.0
    """alpha of the LoRA; its scale is alpha / r, or alpha / sqrt(r) with rslora."""
    modules: tuple[str, ...] = ATTENTION + MLP
    """Short names of the linear modules that get a LoRA."""
    layers: tuple[int, ...] | None = None
    """Decoder layers that get a LoRA; None: all of them."""
    rslora: bool = False
    """Rank-stabilised scaling."""
    schedule: Schedule = Schedule()
    """Length and learning rate."""

    def __post_init__(self) -> None:
        if self.rank < 1 or not 0 < self.alpha < inf:
            raise RamoleError(
                f"rank {self.rank} and alpha {self.alpha} must both be positive numbers."
            )
        if not self.modules:
            raise RamoleError("No module was named: give at least one, such as q_proj.")


@dataclass(frozen=True)
class MethodRecipe:
    """A method's own weights over a few tasks' frozen adapters."""

    method: str = "ramole"
    """Its registry name."""
    settings: Mapping[str, Value] = field(default_factory=dict)
    """Training options of the method's row; those left out have their defaults."""
    dropout: float = 0.5
    """Chance that a whole LoRA is left out of a step; at least two always stay. Only where none are
    retrieved."""
    retrieved: int = 0
    """How many adapters each row is mixed from, those that are found for it; 0: all of a step."""
    masked: float = 0.5
    """Chance that a row's own adapter is not found."""
    schedule: Schedule = Schedule(
        steps=100, batch_rows=12, learning_rate=3e-3, evaluate_every=20, checkpoint_every=10
    )
    """Length and learning rate."""

    def __post_init__(self) -> None:
        given = dict(self.settings)
        row = find_row(self.method)
        for name in given.keys() - {option.name for option in row.training}:
            known = ", ".join(option.name for option in row.training) or "nothing"
            raise RamoleError(
                f"Training {self.method} has no setting {name!r}; it can set {known}."
            )
        complete = {
            option.name: option.check(given.get(option.name, option.default), method=self.method)
            for option in row.training
        }
        object.__setattr__(self, "settings", complete)
        if not 0 <= self.dropout < 1:
            raise RamoleError(f"The dropout is {self.dropout}; it must be in [0, 1).")
        if not 0 <= self.masked <= 1:
            raise RamoleError(f"The chance masked is {self.masked}; it must be in [0, 1].")
        if self.retrieved < 0 or self.retrieved == 1:
            raise RamoleError(
                f"retrieved is {self.retrieved}; a gate chooses between two adapters or more, and "
                "0 means all that are given."
            )


@dataclass(frozen=True)
class MetricRecipe:
    """A metric's settings, chosen on the LoraRetriever pool's inputs, each left out of its own
    mean."""

    shrink: Annotated[float, "Of the metric; 1 leaves the encoder's vectors alone."] = 0.7
    share: Annotated[float, "Of the hashed words in a vector; 0 is none."] = 0.6
    words: int = 1024
    """Dimensions of the words, a power of two; they are those of the whole text."""
    rows: int = 20
    """Inputs of each task that it is fitted to, the first ones."""

    def __post_init__(self) -> None:
        if not 0 <= self.shrink <= 1 or not 0 <= self.share < 1:
            raise RamoleError(
                f"shrink {self.shrink} and share {self.share} are parts of 1: shrink 0 to 1, share "
                "0 to below 1."
            )
        if self.rows < 2:
            raise RamoleError(f"{self.rows} inputs of a task do not vary; give at least 2.")
        if self.words < 2 or self.words & (self.words - 1):
            raise RamoleError(f"{self.words} words is no power of two; try 1024.")


@dataclass(frozen=True)
class RetrieverRecipe:
    """A LoRA on the sentence encoder, and the metric after it."""

    rank: Annotated[int, "r of the LoRA."] = 8
    alpha: Annotated[float, "alpha of the LoRA."] = 16.0
    """Its scale is alpha / r."""
    modules: tuple[str, ...] = ("query", "key", "value", "dense")
    """Linear modules of the encoder that get a LoRA."""
    window: Window = Window(40, 40)
    """Tokens that are read of each text."""
    temperature: Annotated[float, "tau of the loss."] = 0.05
    tasks: Annotated[int, "Tasks in one step.", "--tasks-a-step"] = 24
    """The rows of a step are shared out evenly among them."""
    schedule: Schedule = Schedule(
        steps=40, batch_rows=96, learning_rate=5e-4, warmup=8, evaluate_every=20
    )
    """Length and learning rate; `batch_rows` are texts."""
    metric: MetricRecipe = MetricRecipe()
    """The metric after the LoRA, fitted to its vectors."""

    def __post_init__(self) -> None:
        if self.rank < 1 or self.alpha <= 0 or self.temperature <= 0:
            raise RamoleError(
                f"rank {self.rank}, alpha {self.alpha} and temperature {self.temperature} must all "
                "be positive: raise them."
            )
        if self.tasks < 2 or self.schedule.batch_rows < 2 * self.tasks:
            raise RamoleError(
                f"{self.schedule.batch_rows} rows a step for {self.tasks} tasks: a step needs two "
                "tasks or more, and two texts of each."
            )
