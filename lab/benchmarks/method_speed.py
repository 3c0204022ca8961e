"""What each method costs and needs: tokens a second alone, of eight rows and in prompts, beside
`ramole` over as many adapters as it uses; what is trained.

    python -m lab method_speed

Every method answers the same prompts as it would serve them, with the adapters that it finds (one
that knows a fixed pool takes all of it), in turns with the others; rates are by the engine's own
counters. A method that finds its weights on examples is given equal ones and its adapters, for its
search is no decode step. One whose trained weights are missing is left out.

An adapter is used where its weight is not 0; how many are is the mean over tokens and modules of
one answer. A ratio is to `ramole` over that many, rounded up, within a pass; methods that use none
have none.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from safetensors import safe_open

from lab import harness
from lab.benchmarks.decode_speed import LONG, PROMPT, measure_rates
from ramole_core.composition import METHODS
from ramole_core.composition.trained import weights_file
from ramole_core.errors import RamoleError
from ramole_core.methods import METHOD_LIST, Method, find_row
from ramole_core.ramole import Ramole
from ramole_core.request import Request
from ramole_core.settings import load_settings
from ramole_core.training.prompt_sets import read_phrased

CASES = ("1", "8", "prompt")
"""One request's decode steps; eight requests'; tokens of a prompt of about 400."""
RIVAL = "ramole"


@dataclass
class Runner:
    """A method as it is asked, and its rates by case, one a pass."""

    method: str
    k: int = 3
    used: int = 0
    """Adapters that count for a token."""
    rates: dict[str, list[float]] = field(default_factory=dict)

    def ask(self, ramole: Ramole, prompts: Sequence[str], *, new: int, trace: bool = False):
        """The requests of these prompts."""
        shared: dict[str, object] = {"method": self.method, "k": self.k, "max_new_tokens": new}
        shared |= {"abstain": False, "ignore_eos": True, "trace": trace}
        if find_row(self.method).fits:
            names = [hit.name for hit in ramole.retrieve(prompts[0], self.k)]
            shared |= {"adapters": names, "weights": [1 / len(names)] * len(names)}
        return [Request(prompt, **shared) for prompt in prompts]  # pyright: ignore

    def count_used(self, ramole: Ramole, prompt: str) -> None:
        """Count the adapters whose weight is not 0, over tokens and the modules that have any."""
        (made,) = ramole.generate(self.ask(ramole, [prompt], new=4, trace=True))
        if made.trace is not None and made.adapters:
            counts = (np.asarray(made.trace.weights) != 0).sum(-1)
            self.used = math.ceil(counts[counts > 0].mean()) if counts.any() else 0

    def measure(self, ramole: Ramole, prompts: Sequence[str], *, new: int) -> None:
        """One pass over all cases, each after a few tokens by which its steps are recorded."""
        text = " ".join([PROMPT] * LONG)
        for case, texts in {"1": prompts[:1], "8": prompts}.items():
            measure_rates(ramole, self.ask(ramole, texts, new=4))
            decoded, _ = measure_rates(ramole, self.ask(ramole, texts, new=new))
            self.rates.setdefault(case, []).append(decoded)
        _, read = measure_rates(ramole, self.ask(ramole, [text], new=2))
        self.rates.setdefault("prompt", []).append(read)


def measure(
    ramole: Ramole, names: Sequence[str], *, new: int, passes: int
) -> tuple[list[Runner], dict[int, Runner]]:
    """The methods that can answer, and `ramole` over as many adapters as any of them uses, in
    turns, after one pass that is not counted."""
    prompts = [one.text for one in read_phrased()][::9][:8]
    able: list[Runner] = []
    for name in names:
        one = Runner(name)
        try:
            one.count_used(ramole, prompts[0])
        except RamoleError as error:
            typer.echo(f"{name} is left out: {error}", err=True)
        else:
            able.append(one)
    rivals = {k: Runner(RIVAL, k) for k in sorted({one.used for one in able if one.used})}
    for turn in range(passes + 1):
        for one in [*able, *rivals.values()]:
            if turn == 1:
                one.rates.clear()
            one.measure(ramole, prompts, new=new)
    return able, rivals


def count_trained(row: Method, folder: Path) -> int:
    """Numbers in a method's trained weights; 0 where it has none of its own."""
    if not row.training:
        return 0
    with safe_open(weights_file(folder / row.weights, row), framework="pt") as file:
        sizes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118
    return sum(int(torch.Size(size).numel()) for size in sizes)


def spreads(rates: Mapping[str, Sequence[float]], digits: int) -> dict[str, dict[str, float]]:
    """The spread of each case."""
    return {case: harness.spread(rates[case], digits) for case in CASES}


def main(
    new: Annotated[int, typer.Option(help="Tokens of an answer.")] = 24,
    passes: Annotated[int, typer.Option(help="Counted passes over all methods.")] = 5,
    methods: harness.Methods = "",
    threads: harness.Threads = 0,
    out: harness.Out = harness.RESULTS / "method_speed.json",
) -> None:
    """Measure it, and write the file."""
    settings = load_settings(draft_rows=0)  # a token a step, which is what is compared
    rows = [find_row(name) for name in harness.words(methods)] or METHOD_LIST
    with Ramole(settings) as ramole:
        ramole.load()
        able, rivals = measure(ramole, [row.name for row in rows], new=new, passes=passes)
        results = harness.Results(out, harness.facts_of(ramole))
    by_name = {row.name: row for row in rows}
    found: dict[str, dict[str, object]] = {}
    for one in able:
        row, rival = by_name[one.method], rivals.get(one.used)
        found[one.method] = {
            "paper": row.paper,
            "unseen": METHODS[row.name].experts(2) > 0 and not METHODS[row.name].fixed,
            "trained": count_trained(row, settings.adapters_dir),
            "used": one.used,
            "tokens_a_second": spreads(one.rates, 1),
        }
        if rival is not None:
            pairs = {c: zip(one.rates[c], rival.rates[c], strict=True) for c in CASES}
            ratios = {case: [a / b for a, b in both] for case, both in pairs.items()}
            found[one.method]["of_ramole"] = spreads(ratios, 2)
    told = {str(k): spreads(one.rates, 1) for k, one in rivals.items()}
    results.write(methods=found, ramole_by_adapters=told)
    for name, one in found.items():
        each = [f"{one['tokens_a_second'][c]['median']:8.1f}" for c in CASES]  # pyright: ignore
        of = [f"{span['median']:5.2f}" for span in one.get("of_ramole", {}).values()]  # pyright: ignore
        print(f"{name:16} uses {one['used']:2}", *each, *of)
