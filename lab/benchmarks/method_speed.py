"""What each method costs and needs: tokens a second alone and at eight rows, what is trained.

    python -m lab method_speed

Every method answers the same prompts as it would serve them, with the adapters that it finds (one
that knows a fixed pool takes all of it), in turns with the others; rates are of the decode steps
alone, by the engine's own counters. A method that finds its weights on examples is given equal ones
and its adapters, for its search is no decode step. One whose trained weights are missing is left
out.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import torch
import typer
from safetensors import safe_open

from lab import harness
from lab.benchmarks.decode_speed import measure_rates
from ramole_core.composition import METHODS
from ramole_core.composition.trained import weights_file
from ramole_core.errors import RamoleError
from ramole_core.methods import METHOD_LIST, Method, find_row
from ramole_core.ramole import Ramole
from ramole_core.request import Request
from ramole_core.settings import load_settings
from ramole_core.training.prompt_sets import read_phrased

ROWS = (1, 8)


def count_trained(row: Method, folder: Path) -> int:
    """Numbers in a method's trained weights; 0 where it has none of its own."""
    if not row.training:
        return 0
    with safe_open(weights_file(folder / row.weights, row), framework="pt") as file:
        sizes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118
    return sum(int(torch.Size(size).numel()) for size in sizes)


def decode_rate(ramole: Ramole, method: str, prompts: Sequence[str], *, new: int) -> float:
    """Tokens a second of the decode steps of these prompts in one batch."""
    shared: dict[str, object] = {"method": method, "k": 3, "max_new_tokens": new, "trace": False}
    shared |= {"abstain": False, "ignore_eos": True}
    if find_row(method).fits:
        names = [hit.name for hit in ramole.retrieve(prompts[0], 3)]
        shared |= {"adapters": names, "weights": [1 / len(names)] * len(names)}
    return measure_rates(ramole, [Request(prompt, **shared) for prompt in prompts])[0]  # pyright: ignore


def measure(
    ramole: Ramole, names: Sequence[str], *, new: int, passes: int
) -> Mapping[str, dict[str, dict[str, float]]]:
    """Rates by method and rows, in turns, after one pass that is not counted; without those that
    cannot answer."""
    prompts = [one.text for one in read_phrased()][::9][: max(ROWS)]
    rates: dict[str, dict[int, list[float]]] = {}
    able = list(names)
    for turn in range(passes + 1):
        for name in list(able):
            try:
                found = {n: decode_rate(ramole, name, prompts[:n], new=new) for n in ROWS}
            except RamoleError as error:
                typer.echo(f"{name} is left out: {error}", err=True)
                able.remove(name)
                continue
            for n, rate in found.items():
                rates.setdefault(name, {}).setdefault(n, []).extend([rate] if turn else [])
    return {
        name: {str(n): harness.spread(found, 1) for n, found in row.items()}
        for name, row in rates.items()
    }


def main(
    new: Annotated[int, typer.Option(help="Tokens of an answer.")] = 24,
    passes: Annotated[int, typer.Option(help="Counted passes over all methods.")] = 3,
    methods: harness.Methods = "",
    threads: harness.Threads = 0,
    out: harness.Out = harness.RESULTS / "methods.json",
) -> None:
    """Measure it, and write the file."""
    settings = load_settings(draft_rows=0)  # a token a step, which is what is compared
    rows = [find_row(name) for name in harness.words(methods)] or METHOD_LIST
    with Ramole(settings) as ramole:
        ramole.load()
        rates = measure(ramole, [row.name for row in rows], new=new, passes=passes)
        results = harness.Results(out, harness.facts_of(ramole))
    found = {
        row.name: {
            "paper": row.paper,
            "unseen": METHODS[row.name].experts(2) > 0 and not METHODS[row.name].fixed,
            "trained": count_trained(row, settings.adapters_dir),
            "tokens_a_second": rates[row.name],
        }
        for row in rows
        if row.name in rates
    }
    results.write(methods=found)
    for name, row in found.items():
        alone, together = (rates[name][str(n)]["median"] for n in ROWS)
        print(f"{name:16} {alone:8.1f} {together:8.1f}  {row['trained']:10,}")
