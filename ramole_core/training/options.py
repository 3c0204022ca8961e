"""Shared options of the training commands: fields of a dataclass, and their parsers."""

import inspect
import shlex
import sys
import time
from collections.abc import Callable, Collection
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from math import inf
from pathlib import Path
from typing import Annotated, get_args

import typer

from ramole_core.errors import RamoleError
from ramole_core.settings import holds_weights
from ramole_core.terminal.asked import with_options
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
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace the trained weights that are there.")
]


@dataclass(frozen=True)
class Pace:
    """End and output of a run; each field is an option."""

    until: Annotated[
        str | None,
        typer.Option(help="The end at the latest, in place of --steps: `400`, or `3 epochs`."),
    ] = None
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
        if self.minutes is not None and not self.minutes > 0:
            raise RamoleError(f"--minutes {self.minutes:g} leaves no time; give more than 0.")

    @property
    def deadline(self) -> float:
        """The deadline of a run, by `time.monotonic`."""
        return inf if self.minutes is None else self.started + 60 * self.minutes

    def of(self, schedule: Schedule) -> Schedule:
        """The schedule with this end."""
        steps, epochs = read_until(self.until) if self.until else (0, 0.0)
        return replace(schedule, steps=steps or schedule.steps, epochs=epochs)


def output_folder(folder: Path, *, overwrite: bool) -> Path:
    """The output folder of a run; raises RamoleError where it holds weights already."""
    if holds_weights(folder) and not overwrite:
        raise RamoleError(
            f"There are trained weights in {folder} already; add --overwrite to replace them, or "
            "name another folder with --out."
        )
    return folder


def spread(*left: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A command for typer: a parameter that is a dataclass becomes the options of its fields, those
    of dataclasses in it too, but for the fields in `left`; its default has theirs."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command)
        groups = {n: p for n, p in signature.parameters.items() if is_dataclass(p.annotation)}
        flat: list[inspect.Parameter] = []
        for name, one in signature.parameters.items():
            flat += _options(one.annotation, one.default, left) if name in groups else [one]

        def gather(given: dict[str, object]) -> dict[str, object]:
            made = {n: _gathered(p.annotation, p.default, given) for n, p in groups.items()}
            return given | made

        return with_options(command, flat, gather)

    return decorate


def _options(group: type, default: object, left: Collection[str]) -> list[inspect.Parameter]:
    """The options of a dataclass; where `default` is none of its instances, its own defaults."""
    found = []
    for part in fields(group):
        value = getattr(default, part.name, part.default)
        said = getattr(part.type, "__metadata__", ())
        if isinstance(part.type, type) and is_dataclass(part.type):
            found += _options(part.type, value, left)
        elif said and part.name not in left:
            kind = part.type
            if isinstance(said[0], str):
                kind = Annotated[get_args(kind)[0], typer.Option(*said[1:], help=said[0])]
            value = inspect.Parameter.empty if value is MISSING else value
            keyword = inspect.Parameter.KEYWORD_ONLY
            found.append(inspect.Parameter(part.name, keyword, default=value, annotation=kind))
    return found


def _gathered(group: type, default: object, given: dict[str, object]) -> object:
    """The dataclass of its options' values, which are taken out of `given`."""
    values = {}
    for part in filter(lambda part: part.init, fields(group)):
        value = values[part.name] = getattr(default, part.name, part.default)
        if isinstance(part.type, type) and is_dataclass(part.type):
            values[part.name] = _gathered(part.type, value, given)
        elif hasattr(part.type, "__metadata__"):
            values[part.name] = given.pop(part.name, value)
    return group(**values)


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
