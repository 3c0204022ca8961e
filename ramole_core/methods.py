"""The composition methods by name, paper and options: light, so that a page has them before torch.

Each method declares its row (`Method(...)`) in its own file, `composition/<file>.py`, beside its
equation. The rows of the files in FILES are read from the source without running it, because
running it imports torch; a method that is registered from elsewhere adds its row to the list.
"""

import ast
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ramole_core.errors import RamoleError, did_you_mean

FILES = (
    "ramole",
    "ramole_plus",
    "selection",
    "mixture",
    "fusion",
    "lorahub",
    "lego",
    "ties",
    "dare",
    "similarity",
    "arrow",
    "meteora",
    "moe",
    "smear",
    "mole",
    "lora_flow",
    "spectr",
    "lag",
    "logo",
    "lorauter",
    "ca_lora",
    "llava_mole",
    "base",
    "controls",
)
"""The files of `composition/` that hold methods, in the order of every list; add new ones here."""

DEFAULT_METHOD = "ramole_plus"
"""Method where none is named: it needs no training, so it works on any base."""

Value = bool | int | float
MAX_VALUE = 1e300
"""Largest option, which also excludes nan."""


def range_words(low: int | float, high: int | float) -> str:
    """` from 0 to 4`, ` of at least 0`, or nothing."""
    if math.isinf(low) and math.isinf(high):
        return ""
    if math.isinf(high):
        return f" of at least {low:g}"
    if math.isinf(low):
        return f" of at most {high:g}"
    return f" from {low:g} to {high:g}"


@dataclass(frozen=True)
class Option:
    """One number or switch that a method lets its user set."""

    name: str
    default: Value
    """Its type is the option's: a switch, a whole number or a number."""
    low: int | float = -math.inf
    high: int | float = math.inf
    help: str = ""

    def check(self, value: object, *, method: str) -> Value:
        """The value in the option's type; raises RamoleError where it is none, or out of range."""
        what = f"Option {self.name} of {method} is {value!r}"
        if isinstance(self.default, bool):
            if not isinstance(value, bool):
                raise RamoleError(f"{what}; give true or false.")
            return value
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise RamoleError(f"{what}; give a number{self.range}.")
        if not -MAX_VALUE <= value <= MAX_VALUE or not self.low <= value <= self.high:
            raise RamoleError(f"{what}; give a number{self.range}.")
        if isinstance(self.default, int):
            if value != int(value):
                raise RamoleError(f"{what}; give a whole number{self.range}.")
            return int(value)
        return float(value)

    @property
    def range(self) -> str:
        """` from 0 to 4`, ` of at least 0`, or nothing."""
        return range_words(self.low, self.high)

    def __str__(self) -> str:
        return f"{self.name}={self.default} ({self.help}{self.range and f';{self.range}'})"


@dataclass(frozen=True)
class Method:
    """One row of every list of methods."""

    name: str
    paper: str
    summary: str
    options: tuple[Option, ...] = ()
    """Options of a request (`Request.options`)."""
    weights: str = ""
    """Folder of its trained weights beside the sample pool, such as `_router`; empty: none."""
    training: tuple[Option, ...] = ()
    """Options of a training run; empty: nothing is trained."""
    abstains: bool = False
    """Where no adapter that was found fits, the base answers, unless a request sets `abstain`."""
    keeps_turn: bool = False
    """A message that names no task of its own keeps the adapters of the turn before; without it,
    adapters are found anew for every turn."""
    splits: bool = False
    """A prompt whose parts find different adapters is answered part by part, unless a request sets
    `split`."""
    fits: bool = False
    """Its weights are found on (input, target) pairs, `Request.examples`, unless they are given."""

    def is_trained_in(self, adapters: Path) -> bool:
        """Whether its trained weights are beside these adapters, or it needs none."""
        file = self.weights_in(adapters)
        return not self.training or (file is not None and file.is_file())

    def weights_in(self, adapters: Path) -> Path | None:
        """The folder of its trained weights beside these adapters; None: it has none."""
        name = self.weights.lstrip("_")
        return adapters / self.weights / f"{name}.safetensors" if name else None


def read_rows(file: Path) -> list[Method]:
    """The rows that a method's file declares, in order; only literals may stand in them."""
    tree = ast.parse(file.read_text(encoding="utf-8"), str(file))
    names = {"Method": Method, "Option": Option}
    return [
        eval(compile(ast.Expression(node), str(file), "eval"), {"__builtins__": {}}, names)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "Method"
    ]


METHOD_LIST: list[Method] = [
    row
    for file in FILES
    for row in read_rows(Path(__file__).with_name("composition") / f"{file}.py")
]


def find_row(name: str) -> Method:
    """The row of that method; raises RamoleError that lists the known ones."""
    for row in METHOD_LIST:
        if row.name == name:
            return row
    known = ", ".join(row.name for row in METHOD_LIST)
    near = did_you_mean(name, (row.name for row in METHOD_LIST))
    raise RamoleError(f"Unknown method {name!r}; choose one of {known}.{near}")


def complete_options(name: str, given: Mapping[str, object] | None) -> dict[str, Value]:
    """Every option of a method: those that were given, checked, and the defaults of the others.

    Raises RamoleError for an unknown method or option, and for a value out of its range.
    """
    row, given = find_row(name), dict(given or {})
    options = {option.name: option for option in row.options}
    for unknown in given.keys() - options.keys():
        known = f"it has {', '.join(options)}" if options else "it has none"
        near = did_you_mean(unknown, options)
        raise RamoleError(f"Method {name} has no option {unknown!r}; {known}.{near}")
    return {
        option.name: option.check(given[option.name], method=name)
        if option.name in given
        else option.default
        for option in row.options
    }


def read_values(words: Sequence[str]) -> dict[str, Value]:
    """`rank=6`, `flat=true` as numbers and switches by name; raises RamoleError for other words."""
    found: dict[str, Value] = {}
    for word in words:
        name, equals, text = word.partition("=")
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = None
        if not (equals and name.strip() and isinstance(value, bool | int | float)):
            raise RamoleError(f"{word!r} is not understood; write NAME=VALUE, such as top=2.")
        found[name.strip()] = value
    return found
