"""What adapters without examples cost before the first token: many of them beside the sample pool.

    python -m lab.evaluation.blind_cost

Prompts in people's own words are asked of `ramole_plus` one by one, first of the sample pool, then
with COUNT adapters of random weights beside it that show no examples, once all are packed; each
prompt twice, so that what is read from disk for the first time can be told from what is asked
again.
"""

import json
import math
import tempfile
import time
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from statistics import median, quantiles
from typing import Annotated

import typer

from lab.evaluation.distractors import crowd
from ramole_core.composition.ramole_plus import EXAMINED
from ramole_core.ramole import Ramole
from ramole_core.request import Request
from ramole_core.settings import REPOSITORY, load_settings
from ramole_core.terminal.recorded_command import recorded_command
from ramole_core.training.card import versions
from ramole_core.training.prompt_sets import read_phrased

MODULE = "lab.evaluation.blind_cost"
METHOD = "ramole_plus"
LONGEST = 600.0
"""Seconds until all are packed."""


@dataclass(frozen=True)
class Asked:
    """One prompt to the first token."""

    seconds: float
    blind: int
    """How many of those examined show no examples."""


def ask(ramole: Ramole, prompt: str) -> Asked:
    """Until the first token is there."""
    ramole.engine.forget_prefixes()
    request = Request(prompt, method=METHOD, max_new_tokens=1, trace=False)
    began = time.perf_counter()
    ramole.generate([request])
    spent = time.perf_counter() - began
    examined = ramole.candidates([replace(request, k=EXAMINED)])[0]
    return Asked(spent, sum(math.isnan(one.score) for one in examined))


def told_of(asked: list[Asked]) -> dict[str, float]:
    """Median and upper decile of the seconds; the most adapters without examples that one met."""
    seconds = [one.seconds for one in asked]
    return {
        "median_s": round(median(seconds), 3),
        "p90_s": round(quantiles(seconds, n=10)[-1], 3),
        "blind_examined": max(one.blind for one in asked),
    }


def main(
    count: Annotated[int, typer.Option(help="Adapters without examples.")] = 1000,
    prompts: Annotated[int, typer.Option(help="Prompts in people's own words.")] = 20,
    out: Annotated[Path, typer.Option(help="The JSON file.")] = (
        REPOSITORY / "results" / "blind_cost.json"
    ),
) -> None:
    """Measure it, and write the file."""
    every = read_phrased()
    texts = [one.text for one in every[:: max(1, len(every) // prompts)]][:prompts]
    usual = load_settings()
    with tempfile.TemporaryDirectory() as folder:
        settings = load_settings(data_dir=Path(folder) / "data", base_model=usual.base_model)
        with Ramole(settings) as ramole:
            found, packing = {}, 0.0
            ask(ramole, "Warm up, please.")
            for pool in ("sample pool", f"{count} without examples beside it"):
                if pool != "sample pool":
                    crowd(ramole.pool, [(f"{n:04d}", []) for n in range(count)], seed=0)
                    began = time.perf_counter()
                    if not ramole.packing.wait(LONGEST):
                        raise SystemExit(f"Not all are packed after {LONGEST} s.")
                    packing = time.perf_counter() - began
                    ask(ramole, "Warm up once more, please.")
                for turn in ("first", "again"):
                    found[f"{pool}, {turn}"] = told_of([ask(ramole, text) for text in texts])
    report = {
        "command": recorded_command(MODULE),
        "date": date.today().isoformat(),
        "versions": versions(),
        "prompts": len(texts),
        "adapters_without_examples": count,
        "packed_after_the_last_came_s": round(packing, 1),
        "pools": found,
    }
    out.write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    typer.run(main)
