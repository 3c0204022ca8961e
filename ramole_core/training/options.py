"""Shared options of the training commands: fields of a dataclass, and their parsers."""

import inspect
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass, replace
from functools import wraps
from math import inf
from pathlib import Path
from typing import Annotated

import typer

from ramole_core.errors import RamoleError
from ramole_core.settings import holds_weights
from ramole_core.terminal.recorded_command import as_typed
from ramole_core.training.recipe import ATTENTION, MLP, Schedule

COMMANDS = ("adapter", "method", "router", "retriever")
PLACES = {
    "--data": "",
    "--out": None,
    "--start": "adapters",
    "--minutes": None,
    "--description": None,
}
COUNTS = ("steps", "batch_rows", "measure_every", "max_tokens", "dev_rows")
"""Options that are at least 1, where a command has them."""
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace the trained weights that are there.")
]


@dataclass(frozen=True)
class Pace:
    """Length, learning rate and output of a run; each field is an option."""

    steps: Annotated[int, typer.Option(help="Optimiser steps.")] = 80
    batch_rows: Annotated[int, typer.Option(help="Rows a step.")] = 16
    learning_rate: Annotated[float, typer.Option(help="Peak learning rate.")] = 1.5e-3
    seed: Annotated[int, typer.Option(help="Seed of weights, order and every draw.")] = 0
    until: Annotated[
        str | None,
        typer.Option(help="The end at the latest, in place of --steps: `400`, or `3 epochs`."),
    ] = None
    patience: Annotated[
        int,
        typer.Option(
            help="End after so many measurements without a lower dev loss, and keep the best "
            "measured weights; 0: do all steps, and keep the last."
        ),
    ] = 0
    measure_every: Annotated[int, typer.Option(help="Steps between two dev losses.")] = 20
    minutes: Annotated[
        float | None,
        typer.Option(help="Pause after so many minutes; the same command goes on from there."),
    ] = None
    as_json: Annotated[
        bool, typer.Option("--json", help="End with one JSON object on standard output.")
    ] = False
    started: float = field(default_factory=time.monotonic, init=False)
    """When the command began, of `time.monotonic`."""

    def __post_init__(self) -> None:
        for name in COUNTS:
            if (given := getattr(self, name, 1)) < 1:
                option = f"--{name.replace('_', '-')}"
                raise RamoleError(f"{option} is {given}; it must be at least 1: raise it.")
        if self.minutes is not None and not self.minutes > 0:
            raise RamoleError(f"--minutes {self.minutes:g} leaves no time; give more than 0.")

    @property
    def deadline(self) -> float:
        """The deadline of a run, by `time.monotonic`."""
        return inf if self.minutes is None else self.started + 60 * self.minutes

    def schedule(self, default: Schedule) -> Schedule:
        """The default's, changed by these options."""
        steps, epochs = read_until(self.until) if self.until else (self.steps, 0.0)
        return replace(
            default,
            steps=steps or self.steps,
            epochs=epochs,
            batch_rows=self.batch_rows,
            learning_rate=self.learning_rate,
            seed=self.seed,
            patience=self.patience,
            evaluate_every=self.measure_every,
        )


@dataclass(frozen=True)
class RowPace(Pace):
    """The same options over rows of a task, each a prompt and an answer."""

    max_tokens: Annotated[int, typer.Option(help="Longer rows are left out.")] = 224
    dev_rows: Annotated[int, typer.Option(help="Rows that the dev loss is measured on.")] = 50

    def schedule(self, default: Schedule) -> Schedule:
        """The default's, changed by these options."""
        made = super().schedule(default)
        return replace(made, max_tokens=self.max_tokens, dev_rows=self.dev_rows)


def output_folder(folder: Path, *, overwrite: bool) -> Path:
    """The output folder of a run; raises RamoleError where it holds weights already."""
    if holds_weights(folder) and not overwrite:
        raise RamoleError(
            f"There are trained weights in {folder} already; add --overwrite to replace them, or "
            "name another folder with --out."
        )
    return folder


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """A command for typer: a parameter that is a dataclass becomes the options of its fields, with
    the values of its default as theirs."""
    signature = inspect.signature(command)
    groups = {n: p for n, p in signature.parameters.items() if is_dataclass(p.annotation)}
    flat: dict[str, inspect.Parameter] = {}
    for name, one in signature.parameters.items():
        if name not in groups:
            flat[name] = one.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            continue
        for part in _option_fields(one.annotation):
            default = part.default if one.default is one.empty else getattr(one.default, part.name)
            flat[part.name] = inspect.Parameter(
                part.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=one.empty if default is MISSING else default,
                annotation=part.type,
            )

    @wraps(command)
    def run(**given: object) -> None:
        for name, one in groups.items():
            values = {part.name: given.pop(part.name) for part in _option_fields(one.annotation)}
            given[name] = one.annotation(**values)
        command(**given)

    vars(run).pop("__wrapped__")
    vars(run)["__signature__"] = signature.replace(parameters=list(flat.values()))
    run.__annotations__ = {name: one.annotation for name, one in flat.items()}
    return run


def _option_fields(group: type) -> list[Field]:
    """The fields that are options."""
    return [part for part in fields(group) if part.init]


def read_until(words: str) -> tuple[int, float]:
    """(steps, epochs), one of them 0, from `400` or `3 epochs`."""
    number, _, unit = words.strip().partition(" ")
    try:
        if not unit and int(number) > 0:
            return int(number), 0.0
        if unit.strip() in ("epoch", "epochs") and 0 < float(number) < inf:
            return 0, float(number)
    except ValueError:
        pass
    raise RamoleError(f"--until {words} is not understood; write 400 or '3 epochs'.")


def read_names(words: str) -> list[str]:
    """Names from a comma-separated list."""
    return [word.strip() for word in words.split(",") if word.strip()]


def read_modules(words: str) -> tuple[str, ...]:
    """Module names from a comma-separated list in which `attention` and `mlp` are groups."""
    groups = {"attention": ATTENTION, "mlp": MLP}
    return tuple(module for name in read_names(words) for module in groups.get(name, (name,)))


def read_layers(words: str | None) -> tuple[int, ...] | None:
    """Layer numbers from `10-29` or `1,3,5`; None for None."""
    if words is None:
        return None
    try:
        layers: list[int] = []
        for part in words.split(","):
            first, dash, last = part.partition("-")
            found = range(int(first), int(last if dash else first) + 1)
            if not found:
                raise ValueError(part)
            layers += found
        return tuple(layers)
    except ValueError:
        raise RamoleError(f"--layers {words} is not understood; write 10-29 or 1,3,5.") from None


def command_line() -> str:
    """The command line of this run, as it is typed again: `--data` is recorded by its folder's own
    name; where the weights went and when it paused are left out."""
    at = next((n for n, word in enumerate(sys.argv) if word in COMMANDS), len(sys.argv))
    return shlex.join(["python", "-m", "ramole_core", "train", *as_typed(sys.argv[at:], PLACES)])
