"""What the training commands' words mean: modules, layers, and the command line itself."""

import shlex
import sys
from typing import Annotated

import typer

from ramole_core.errors import RamoleError
from ramole_core.terminal.recorded_command import as_typed
from ramole_core.training.recipe import ATTENTION, MLP

COMMANDS = ("adapter", "method", "router", "retriever")
Json = Annotated[bool, typer.Option("--json", help="End with one JSON object on standard output.")]


def read_modules(words: str) -> tuple[str, ...]:
    """Module names from a comma-separated list in which `attention` and `mlp` are groups."""
    groups = {"attention": ATTENTION, "mlp": MLP}
    names = [word.strip() for word in words.split(",") if word.strip()]
    return tuple(module for name in names for module in groups.get(name, (name,)))


def read_layers(words: str | None) -> tuple[int, ...] | None:
    """Layer numbers from `10-29` or `1,3,5`; None for None."""
    if words is None:
        return None
    try:
        layers: list[int] = []
        for part in words.split(","):
            first, _, last = part.partition("-")
            layers += range(int(first), int(last or first) + 1)
        return tuple(layers)
    except ValueError:
        raise RamoleError(f"--layers {words} is not understood; write 10-29 or 1,3,5.") from None


def command_line() -> str:
    """The words that started this run, as a person would type them again: `--data` is recorded as
    `data`, and where the weights went is left out."""
    at = next((n for n, word in enumerate(sys.argv) if word in COMMANDS), len(sys.argv))
    words = as_typed(sys.argv[at:], {"--data": "data", "--out": None})
    return shlex.join(["python", "-m", "ramole_core", "train", *words])
