"""The crowded pool: sample adapters among forty strangers, and what is left of their answers.

    python -m ramole_core.evaluation.crowded --data DATA

The strangers have random weights of the sample adapters' own size, and example inputs of other
tasks: invented ones (`distractors.py`) or, with --real, the data's own. Over dev prompts spread
evenly over the sample adapters: how often is the right adapter found first, and what do the methods
answer with the k that were found? Answers are greedy; scores are each row's own metric and its
lenient form, 0 to 100, with 95 % bootstrap intervals, and the gains over the base are paired by
row.
"""

import json
import random
import shlex
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from ramole_core.base_model import fetch_base, weights_checksum
from ramole_core.engine.request import Request
from ramole_core.evaluation.distractors import TASKS, crowd, read_examples, write_examples
from ramole_core.evaluation.intervals import bootstrap, paired_difference
from ramole_core.evaluation.metrics import score
from ramole_core.evaluation.rounded import write_rounded
from ramole_core.ramole import Ramole
from ramole_core.settings import REPOSITORY, load_settings
from ramole_core.training.card import versions
from ramole_core.training.rows import read_task

MODULE = ("python", "-m", "ramole_core.evaluation.crowded")
METHODS = ("base", "ramole", "mixture", "selection", "uniform_router", "random_router")
PERFECT = "perfect"
"""The row's own adapter, named, with weight 1: what a retriever without a fault would allow."""


@dataclass(frozen=True)
class Prompt:
    """A dev row and the adapter that was trained for it."""

    adapter: str
    metric: str
    text: str
    target: str


def draw_prompts(data: Path, adapters: Sequence[str], *, count: int, seed: int) -> list[Prompt]:
    """`count` dev rows, spread evenly over the adapters, drawn at random within each."""
    prompts = []
    for number, name in enumerate(adapters):
        task = read_task(data / name)
        share = count // len(adapters) + (number < count % len(adapters))
        rows = random.Random(f"{seed}/{name}").sample(task.dev, share)
        prompts += [Prompt(name, task.metric, row.inputs, row.targets) for row in rows]
    return prompts


def measure_retrieval(prompts: Sequence[Prompt], found: Sequence[Sequence[str]]) -> dict:
    """How often the right adapter comes first, and is found at all, in percent of prompts."""
    first = [100.0 * (names[0] == p.adapter) for names, p in zip(found, prompts, strict=True)]
    within = [100.0 * (p.adapter in names) for names, p in zip(found, prompts, strict=True)]
    missed = Counter(
        f"{p.adapter} -> {names[0]}"
        for names, p in zip(found, prompts, strict=True)
        if names[0] != p.adapter
    )
    return {
        "first": asdict(bootstrap(first)),
        "found": asdict(bootstrap(within)),
        "first_by_adapter": by_adapter(prompts, first),
        "missed": dict(missed.most_common()),
    }


def answer(
    ramole: Ramole, prompts: Sequence[Prompt], method: str, *, k: int, tokens: int
) -> list[str]:
    """The method's answers, in the prompts' order."""
    shared = {"max_new_tokens": tokens, "trace": False}
    if method == PERFECT:
        requests = [
            Request(p.text, method="selection", adapters=(p.adapter,), **shared) for p in prompts
        ]
    else:
        requests = [Request(p.text, method=method, k=k, **shared) for p in prompts]
    answers = []
    size = ramole.settings.max_batch
    for start in track(range(0, len(requests), size), description=f"{method:>16}"):
        answers += [done.text.strip() for done in ramole.generate(requests[start : start + size])]
    return answers


def compare(prompts: Sequence[Prompt], answers: dict[str, list[str]], *, forgiving: bool) -> dict:
    """Means with intervals, paired gains over the base and of ramole over the rest, by adapter."""
    scores = {
        method: [
            score(p.metric, [text], [p.target], forgiving=forgiving)[0]
            for p, text in zip(prompts, given, strict=True)
        ]
        for method, given in answers.items()
    }
    table = {}
    for method, mine in scores.items():
        table[method] = asdict(bootstrap(mine)) | {"by_adapter": by_adapter(prompts, mine)}
        if method != "base" and "base" in scores:
            table[method]["gain_over_base"] = asdict(paired_difference(mine, scores["base"]))
        if method not in ("base", "ramole") and "ramole" in scores:
            table[method]["ramole_ahead"] = asdict(paired_difference(scores["ramole"], mine))
    return table


def by_adapter(prompts: Sequence[Prompt], values: Sequence[float]) -> dict[str, float]:
    """The mean value of each adapter's prompts."""
    groups: dict[str, list[float]] = {}
    for prompt, value in zip(prompts, values, strict=True):
        groups.setdefault(prompt.adapter, []).append(value)
    return {name: round(sum(group) / len(group), 1) for name, group in groups.items()}


def table_of(report: dict) -> Table:
    """The report's scores for the terminal."""
    table = Table("method", "strict", "over base", "lenient", "over base")
    for method in report["strict"]:
        cells = []
        for scoring in ("strict", "lenient"):
            found = report[scoring][method]
            gain = found.get("gain_over_base")
            cells.append(f"{found['mean']:.1f}")
            cells.append(
                f"{gain['mean']:+.1f} [{gain['low']:+.1f}, {gain['high']:+.1f}]" if gain else ""
            )
        table.add_row(method, *cells)
    return table


def main(
    data: Annotated[Path, typer.Option(help="Folder of task folders.")] = Path("data"),
    prompts: Annotated[int, typer.Option(help="Dev prompts, over all sample adapters.")] = 100,
    distractors: Annotated[int, typer.Option(help="Strangers to add.")] = len(TASKS),
    real: Annotated[bool, typer.Option(help="Examples of the data's other tasks.")] = False,
    k: Annotated[int, typer.Option(help="Adapters that a method mixes.")] = 3,
    tokens: Annotated[int, typer.Option(help="Longest answer.")] = 50,
    methods: Annotated[str, typer.Option(help="Comma separated; empty: retrieval only.")] = (
        ",".join((*METHODS, PERFECT))
    ),
    seed: Annotated[int, typer.Option()] = 0,
    rounded: Annotated[
        bool, typer.Option(help="Base rounded to NF4 but computed in bfloat16: faster on a CPU.")
    ] = True,
    out: Annotated[Path, typer.Option(help="The JSON file to write.")] = (
        REPOSITORY / "results" / "crowded.json"
    ),
    answers_file: Annotated[
        Path | None, typer.Option(help="Keep prompts and answers here, to be looked at.")
    ] = None,
) -> None:
    """Measure retrieval and answers in a crowded pool; the report is written after each method."""
    usual = load_settings()
    folder = fetch_base(usual.base_model, data_dir=usual.data_dir)
    console = Console()
    asked = ("--data", data, "--prompts", prompts, "--distractors", distractors, "--k", k)
    asked += ("--tokens", tokens, "--methods", methods, "--seed", seed)
    asked += ("--real",) if real else ()
    with tempfile.TemporaryDirectory() as data_dir:
        base = write_rounded(folder, Path(data_dir) / "rounded") if rounded else folder
        settings = load_settings(
            data_dir=Path(data_dir) / "data",
            base_model=str(base),
            chroma_url=None,
            quantization="none" if rounded else usual.quantization,
            max_batch=20,
        )
        with Ramole(settings) as ramole:
            samples = [card.name for card in ramole.pool.cards()]
            rows = draw_prompts(data, samples, count=prompts, seed=seed)
            if real:
                tasks = read_examples(data, distractors, but=samples, seed=seed)
            else:
                tasks = write_examples(distractors, seed=seed)
            strangers = crowd(ramole.pool, tasks, seed=seed)
            found = [[hit.name for hit in ramole.retrieve(row.text, k)] for row in rows]
            report: dict = {
                "command": shlex.join([*MODULE, *map(str, asked)]),
                "versions": versions(),
                "prompts": len(rows),
                "k": k,
                "seed": seed,
                "samples": {card.name: card.sha256 for card in ramole.pool.cards()[: len(samples)]},
                "distractors": strangers,
                "retrieval": measure_retrieval(rows, found),
            }
            first = report["retrieval"]["first"]
            console.print(
                f"The right adapter is first for {first['mean']:.1f} % "
                f"[{first['low']:.1f}, {first['high']:.1f}] of {len(rows)} prompts."
            )
            answers: dict[str, list[str]] = {}
            for method in filter(None, methods.split(",")):
                answers[method] = answer(ramole, rows, method, k=k, tokens=tokens)
                report |= {
                    "base_model": usual.base_model,
                    "base_checksum": weights_checksum(folder, data_dir=usual.data_dir),
                    "quantization": "nf4, computed in bfloat16" if rounded else usual.quantization,
                    "router_checksum": ramole.router_checksum,
                    "max_new_tokens": tokens,
                    "strict": compare(rows, answers, forgiving=False),
                    "lenient": compare(rows, answers, forgiving=True),
                }
                _write(out, report)
                if answers_file is not None:
                    kept = [asdict(row) for row in rows]
                    answers_file.write_text(
                        json.dumps({"rows": kept, "answers": answers}, indent=1)
                    )
            _write(out, report)
            if answers:
                console.print(table_of(report))


def _write(path: Path, report: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(typer.run(main))
