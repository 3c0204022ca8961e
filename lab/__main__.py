"""`python -m lab NAME`: run one measurement; `python -m lab` alone lists them."""

import ast
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import typer

from ramole_core.cli.command_line import run
from ramole_core.terminal.console import say

EVALUATION = (
    "dev_table", "evidence_table", "retriever_table", "composite_n", "parts_table",
    "ca_lora_table", "llava_mole_table", "effects", "visits", "second_half", "usable", "papers",
)  # fmt: skip
BENCHMARKS = (
    "method_speed", "decode_speed", "draft_speed", "budget", "many_users", "page_speed",
    "first_minute",
)  # fmt: skip
MEASUREMENTS = {
    **{name: f"lab.evaluation.{name}" for name in EVALUATION},
    **{name: f"lab.benchmarks.{name}" for name in BENCHMARKS},
    "sources": "lab.sources",
    "train_pool": "lab.train_pool",
    "reword": "lab.reword",
    "other_base": "lab.other_base",
    "router_claim": "lab.router_claim",
    "lora_flow_claim": "lab.lora_flow_claim",
    "lora_hub_claim": "lab.lora_hub_claim",
}
"""By name: the module whose `main` is the command."""

ONCE = ("few_bits", "colours")
"""Measured once; what it gave stays in results/ or LOG.md, its code is in git's history."""


def summary_of(name: str) -> str:
    """The first line of a measurement's docstring; its file is read, not imported."""
    file = Path(__file__).parents[1] / f"{MEASUREMENTS[name].replace('.', '/')}.py"
    return (ast.get_docstring(ast.parse(file.read_text("utf-8"))) or "").partition("\n")[0]


def command_of(name: str) -> typer.Typer:
    """The measurement as a program of its own."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command(name)(import_module(MEASUREMENTS[name]).main)
    return app


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is named; returns the exit status."""
    name, *options = [*(sys.argv[1:] if arguments is None else arguments), ""]
    if name in ("", "--help"):
        for each in MEASUREMENTS:
            print(f"{each:18} {summary_of(each)}")
        print("\n`python -m lab NAME --help` lists the options of one.")
        return 0
    if name in ONCE:
        say(f"{name} was measured once: see LOG.md, and `git log --stat -- '*/{name}.py'`.")
        return 2
    if name not in MEASUREMENTS:
        say(f"No measurement is named {name!r}; choose from {', '.join(MEASUREMENTS)}.")
        return 2
    return run(command_of(name), f"python -m lab {name}", options[:-1])


if __name__ == "__main__":
    sys.exit(main())
