"""The tuned retriever by the LoraRetriever paper's protocol, and the shipped one on unseen tasks.

    python -m lab retriever_table --data DATA

Pool: the 48 LoRAs of the paper, each with 20 sample inputs; prompts of the same 48 tasks (arXiv
2402.09997, table 2). A run trains what `train retriever` trains on the samples of a share of the
tasks, drawn by its seed, and is served as anything else: a mean over samples, a cosine. Beside it
stand its LoRA alone, which is what the paper tunes, and the metric and words alone, which take no
steps. The prompts take no part in any choice. Untuned is the encoder alone in the same window,
which finds more than in its own. With `merged`, tasks that share their instructions (`TWINS`) count
as one. Intervals are bootstrapped over prompts, after averaging a prompt over seeds, and beside
that over tasks, which is wider and says what to expect of other tasks. Runs that the
file or the work folder holds already are not made again.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from lab import harness
from lab.evaluation.retriever_places import POOL, TWINS, Embed, Places, Remembered, summarise
from lab.evaluation.retriever_runs import SERVED, WAYS, Tuner
from lab.evaluation.tables import span_table
from ramole_core.pool.examples_and_readme import parse_examples
from ramole_core.retrieval.encoder import Encoder
from ramole_core.settings import load_settings
from ramole_core.training.retriever import Texts
from ramole_core.training.retriever_data import read_texts
from ramole_core.training.retriever_recipe import RetrieverRecipe
from ramole_core.training.rows import read_task

PUBLISHED = {
    "untuned MiniLM": (51.7, 73.1, 80.5, 87.2),
    "untuned Instructor-xl": (60.8, 79.3, 85.6, 91.6),
    "tuned on 40 %": (63.2, 89.1, 95.5, 99.0),
    "tuned on 100 %": (74.1, 97.4, 99.2, 99.8),
}
"""Top-1, 3, 5, 8 of the paper."""

EXAMPLES = 20
HALVES = 4
"""Splits of the shipped retriever's tasks, at most."""
WHOLE = 5
"""Runs on all tasks, at most: no split there, only another order and another start."""


def split_tasks(names: list[str], *, share: float, seed: int) -> list[str]:
    """The tasks that a run is tuned on."""
    order = np.random.default_rng(seed).permutation(len(names))
    return [names[n] for n in sorted(order[: round(share * len(names))])]


def read_folders(data: Path, *, rows: int) -> tuple[Texts, list[dict]]:
    """All task folders of the data: 20 training inputs each, and `rows` dev prompts of each."""
    tasks = [read_task(path.parent) for path in sorted(data.glob("*/dev.jsonl"))]
    prompts = [
        {"task": task.name, "inputs": row.inputs} for task in tasks for row in task.dev[:rows]
    ]
    return {task.name: [row.inputs for row in task.train[:EXAMPLES]] for task in tasks}, prompts


def sample_pool(examples: Texts, prompts: list[dict], adapters: Path) -> tuple[Texts, list[dict]]:
    """The sample adapters with their own examples among the tasks that have none, and their
    prompts."""
    own: dict[str, Sequence[str]] = {}
    for path in sorted(adapters.glob("[!_]*/examples.jsonl")):
        own[path.parent.name] = parse_examples(path.read_bytes())[0][:EXAMPLES]
    return {**examples, **own}, [prompt for prompt in prompts if prompt["task"] in own]


class Runs:
    """The places of every run, in the results file as soon as they are known."""

    def __init__(self, results: harness.Results):
        """Goes on with the file where it was made by the same recipe and encoder."""
        results.take_over("runs", "summary", "shipped", where=("recipe", "encoder_checksum"))
        self._results = results
        found = results.held.setdefault("runs", {})
        assert isinstance(found, dict)
        self._held = found

    def places(self, run: str) -> Places | None:
        """What a run measured; None when it was not made yet."""
        found = self._held.get(run)
        return Places.read(found) if found else None

    def facts(self, run: str) -> dict:
        """What was noted of a run."""
        return self._held.get(run, {})

    def keep(self, run: str, places: Places, **facts: object) -> None:
        """Write a run down."""
        self._held[run] = {**places.write(), **facts}
        self._results.write()


def main(
    data: Annotated[
        Path, typer.Option(help="Folder of task folders and retrieval/.")
    ] = harness.DATA,
    seeds: Annotated[
        int, typer.Option(help="Splits of the tasks at 40 %, and of the data's.")
    ] = 10,
    rows: harness.Rows = 8,
    threads: harness.Threads = 0,
    work: harness.Work = Path("retriever_table"),
    out: harness.Out = harness.RESULTS / "retriever.json",
) -> None:
    """Tune on shares of the paper's pool, and measure the shipped retriever."""
    settings = load_settings()
    loras = json.loads((data / "retrieval" / "lora_samples.json").read_text())[:POOL]
    prompts = json.loads((data / "retrieval" / "queries.json").read_text())
    examples = {x["model_name"]: [row["inputs"] for row in x["sample"]] for x in loras}
    tasks = np.array([prompt["task"] for prompt in prompts])
    recipe = RetrieverRecipe()
    untuned = Encoder(data_dir=settings.data_dir)
    shipped = Encoder(data_dir=settings.data_dir, adapter=settings.adapters_dir / "_retriever")
    dense = Remembered(lambda texts: untuned.dense(texts, window=recipe.window))
    tuner = Tuner(work, recipe=recipe, untuned=dense, data_dir=settings.data_dir)
    facts = {"recipe": asdict(recipe), "encoder_checksum": untuned.checksum}
    facts |= {"pool": len(examples), "prompts": len(prompts)}
    results = harness.Results(out, facts, twins=TWINS, published=PUBLISHED)
    runs = Runs(results)
    served: dict[str, tuple[Embed, Encoder]] = {"untuned": (dense, untuned)}
    if shipped.tuned:
        served["shipped"] = (Remembered(shipped.embed), shipped)
    for name, (embed, encoder) in served.items():
        if runs.facts(name).get("checksum") != encoder.checksum:
            runs.keep(name, Places.measure(embed, examples, prompts), checksum=encoder.checksum)
    shares = {0.4: seeds, 1.0: min(seeds, WHOLE)}
    for share, count in shares.items():
        for seed in range(count):
            if all(runs.places(run_name(share, seed, way)) for way in WAYS):
                continue
            chosen = split_tasks(list(examples), share=share, seed=seed)
            ways = tuner.ways(
                f"{share:.0%}-seed{seed}", {name: examples[name] for name in chosen}, seed=seed
            )
            for way, embed in ways.items():
                runs.keep(
                    run_name(share, seed, way),
                    Places.measure(embed, examples, prompts),
                    tuned_on=chosen,
                )
            results.write(summary=summary_of(runs, tasks, shares=shares))
    summary = summary_of(runs, tasks, shares=shares)
    results.write(summary=summary)
    if shipped.tuned:
        found = measure_shipped(
            dense,
            served["shipped"][0],
            tuner,
            data=data,
            adapters=settings.adapters_dir,
            rows=rows,
            seeds=min(seeds, HALVES),
        )
        results.write(shipped=found | {"checksum": shipped.checksum})
    Console().print(show(summary))


def summary_of(runs: Runs, tasks: np.ndarray, *, shares: Mapping[float, int]) -> dict:
    """The table: retriever x (all prompts, those of tuned tasks, those of unseen tasks)."""
    untuned = runs.places("untuned")
    assert untuned is not None
    everything, named = np.ones(len(tasks), bool), tasks.tolist()
    table = {"untuned": {"all": summarise([untuned], [everything], tasks=named)}}
    if shipped := runs.places("shipped"):
        found = summarise([shipped], [everything], tasks=named, against=untuned)
        table["shipped"] = {"all": found}
    for (share, count), way in product(shares.items(), WAYS):
        names = [run_name(share, seed, way) for seed in range(count)]
        names = [name for name in names if runs.places(name)]
        made = [places for name in names if (places := runs.places(name))]
        if not made:
            continue
        tuned = [np.isin(tasks, runs.facts(name)["tuned_on"]) for name in names]
        rows = {"all": summarise(made, [everything] * len(made), tasks=named, against=untuned)}
        if share < 1:
            unseen = [~mask for mask in tuned]
            rows["tuned"] = summarise(made, tuned, tasks=named, against=untuned)
            rows["unseen"] = summarise(made, unseen, tasks=named, against=untuned)
            if way == SERVED:
                rows["unseen, untuned"] = summarise([untuned] * len(made), unseen, tasks=named)
        table[f"tuned on {share:.0%}{way}"] = rows
    return table


def run_name(share: float, seed: int, way: str) -> str:
    """A run's name in the file."""
    return f"{share:.0%}, seed {seed}{way}"


def measure_shipped(
    dense: Embed, shipped: Embed, tuner: Tuner, *, data: Path, adapters: Path, rows: int, seeds: int
) -> dict:
    """The shipped retriever against the untuned one on the data's dev prompts, and, on tasks that
    it was not tuned on, twins of it that saw half of its tasks."""
    record = json.loads((adapters / "_retriever" / "retriever.json").read_text(encoding="utf-8"))
    groups = list(record["trained_on"])
    trained = names_in(groups)
    examples, prompts = read_folders(data, rows=rows)
    tasks = np.array([prompt["task"] for prompt in prompts])
    before = Places.measure(dense, examples, prompts)
    after = Places.measure(shipped, examples, prompts)
    learnt, named = np.isin(tasks, trained), tasks.tolist()
    found: dict = {
        "trained_on": trained,
        "tasks it was not tuned on": compare(before, [after], [~learnt], named),
        "tasks it was tuned on, dev prompts": compare(before, [after], [learnt], named),
    }
    twins, masks = [], []
    for seed in range(seeds):
        half = split_tasks(groups, share=0.5, seed=seed)
        texts = read_texts(data, ",".join(half), rows=max(record["trained_on"].values()), seed=seed)
        embed = tuner.ways(f"half-seed{seed}", texts.train, seed=seed)[SERVED]
        twins.append(Places.measure(embed, examples, prompts))
        masks.append(~np.isin(tasks, names_in(half)))
    found["tuned on half of its tasks, the other tasks"] = compare(before, twins, masks, named)
    pool, asked = sample_pool(examples, prompts, adapters)
    everything = [np.ones(len(asked), bool)]
    old, new = (Places.measure(embed, pool, asked) for embed in (dense, shipped))
    owners = [prompt["task"] for prompt in asked]
    return found | {"sample adapters among strangers": compare(old, [new], everything, owners)}


def compare(
    old: Places, new: Sequence[Places], masks: Sequence[np.ndarray], tasks: Sequence[str]
) -> dict[str, object]:
    """A retriever, or runs of it, against the untuned one on the prompts of the masks."""
    return {
        "prompts": int(np.stack(masks).any(0).sum()),
        "untuned": summarise([old] * len(masks), masks, tasks=tasks),
        "shipped": summarise(new, masks, tasks=tasks, against=old),
    }


def names_in(groups: Sequence[str]) -> list[str]:
    """The tasks of groups such as `a+b`."""
    return [name for group in groups for name in group.split("+")]


def show(summary: Mapping[str, Mapping[str, Mapping]]) -> Table:
    """The top-k figures for the terminal, twins apart; intervals over prompts."""

    def span(cell: Mapping) -> dict[str, float]:
        return dict(zip(("mean", "low", "high"), (cell["mean"], *cell["interval"]), strict=True))

    rows = {
        f"{name}, {part}": {top: span(cell) for top, cell in found["plain"].items()}
        for name, parts in summary.items()
        for part, found in parts.items()
    }
    return span_table("percent of prompts", rows)
