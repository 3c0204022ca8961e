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
from typing import Annotated, Any

import numpy as np
import typer

from lab import harness
from lab.evaluation.retriever_places import (
    POOL,
    SERVED,
    TWINS,
    WAYS,
    Embed,
    Places,
    Remembered,
    Tuner,
    summarise,
)
from ramole_core.pool.examples_and_readme import parse_examples
from ramole_core.retrieval.encoder import Encoder
from ramole_core.settings import load_settings
from ramole_core.training.recipe import RetrieverRecipe
from ramole_core.training.retriever import Texts, read_texts
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
        self.held: Any = results.held.setdefault("runs", {})

    def places(self, names: Sequence[str]) -> list[Places]:
        """What these runs measured, as far as they were made."""
        return [Places.read(self.held[name]) for name in names if name in self.held]

    def keep(self, run: str, places: Places, **facts: object) -> None:
        """Write a run down."""
        self.held[run] = {**places.write(), **facts}
        self._results.write()


def main(
    data: Annotated[
        Path, typer.Option(help="Folder of task folders and retrieval/.")
    ] = harness.DATA,
    seeds: Annotated[int, typer.Option(help="Splits of the tasks at 40 %.")] = 10,
    rows: harness.Rows = 8,
    threads: harness.Threads = 0,
    work: harness.Work = Path("retriever_table"),
    out: harness.Out = harness.RESULTS / "retriever.json",
) -> None:
    """Tune on shares of the paper's pool, and measure the shipped retriever."""
    settings, recipe = load_settings(), RetrieverRecipe()
    loras = json.loads((data / "retrieval" / "lora_samples.json").read_text())[:POOL]
    prompts = json.loads((data / "retrieval" / "queries.json").read_text())
    examples = {x["model_name"]: [row["inputs"] for row in x["sample"]] for x in loras}
    tasks = [prompt["task"] for prompt in prompts]
    untuned = Encoder(data_dir=settings.data_dir)
    shipped = Encoder(data_dir=settings.data_dir, adapter=settings.adapters_dir / "_retriever")
    dense = Remembered(lambda texts: untuned.dense(texts, window=recipe.window))
    tuner = Tuner(work, recipe=recipe, untuned=dense, data_dir=settings.data_dir)
    facts = {"recipe": asdict(recipe), "encoder_checksum": untuned.checksum}
    facts |= {"pool": len(examples), "prompts": len(prompts)}
    results = harness.Results(out, facts, twins=TWINS, published=PUBLISHED)
    runs, served = Runs(results), {"untuned": (dense, untuned)}
    if shipped.tuned:
        served["shipped"] = (Remembered(shipped.embed), shipped)
    for name, (embed, encoder) in served.items():
        if runs.held.get(name, {}).get("checksum") != encoder.checksum:
            runs.keep(name, Places.measure(embed, examples, prompts), checksum=encoder.checksum)
    shares = {0.4: seeds, 1.0: min(seeds, WHOLE)}
    for share, count in shares.items():
        for seed in range(count):
            if all(run_name(share, seed, way) in runs.held for way in WAYS):
                continue
            chosen = split_tasks(list(examples), share=share, seed=seed)
            texts = {name: examples[name] for name in chosen}
            ways = tuner.ways(f"{share:.0%}-seed{seed}", texts, seed=seed)
            for way, embed in ways.items():
                places = Places.measure(embed, examples, prompts)
                runs.keep(run_name(share, seed, way), places, tuned_on=chosen)
            results.write(summary=summary_of(runs, tasks, shares=shares))
    results.write(summary=summary_of(runs, tasks, shares=shares))
    if shipped.tuned:
        embeds, adapters = (dense, served["shipped"][0]), settings.adapters_dir
        halves = min(seeds, HALVES)
        found = measure_shipped(
            embeds, tuner, data=data, adapters=adapters, rows=rows, seeds=halves
        )
        results.write(shipped=found | {"checksum": shipped.checksum})


def summary_of(runs: Runs, tasks: Sequence[str], *, shares: Mapping[float, int]) -> dict:
    """The table: retriever x (all prompts, those of tuned tasks, those of unseen tasks)."""
    (untuned,), everything = runs.places(["untuned"]), np.ones(len(tasks), bool)

    def top(made: Sequence[Places], masks: Sequence[np.ndarray]) -> dict:
        return summarise(made, masks, tasks=tasks, against=untuned)

    table = {"untuned": {"all": summarise([untuned], [everything], tasks=tasks)}}
    if shipped := runs.places(["shipped"]):
        table["shipped"] = {"all": top(shipped, [everything])}
    for (share, count), way in product(shares.items(), WAYS):
        names = [run_name(share, seed, way) for seed in range(count)]
        made = runs.places(names)
        if not made:
            continue
        learnt = [runs.held[name]["tuned_on"] for name in names if name in runs.held]
        tuned = [np.isin(tasks, names) for names in learnt]
        rows = {"all": top(made, [everything] * len(made))}
        if share < 1:
            unseen = [~mask for mask in tuned]
            rows |= {"tuned": top(made, tuned), "unseen": top(made, unseen)}
            if way == SERVED:
                rows["unseen, untuned"] = summarise([untuned] * len(made), unseen, tasks=tasks)
        table[f"tuned on {share:.0%}{way}"] = rows
    return table


def run_name(share: float, seed: int, way: str) -> str:
    """A run's name in the file."""
    return f"{share:.0%}, seed {seed}{way}"


def measure_shipped(
    embeds: Sequence[Embed], tuner: Tuner, *, data: Path, adapters: Path, rows: int, seeds: int
) -> dict:
    """The shipped retriever against the untuned one (`embeds`: that one first) on the data's dev
    prompts, and, on tasks that it was not tuned on, twins of it that saw half of its tasks."""
    record = json.loads((adapters / "_retriever" / "retriever.json").read_text(encoding="utf-8"))
    groups = list(record["trained_on"])
    trained = names_in(groups)
    examples, prompts = read_folders(data, rows=rows)
    tasks = [prompt["task"] for prompt in prompts]
    before, after = (Places.measure(embed, examples, prompts) for embed in embeds)
    learnt = np.isin(tasks, trained)
    twins, masks = [], []
    for seed in range(seeds):
        half = split_tasks(groups, share=0.5, seed=seed)
        texts = read_texts(data, ",".join(half), rows=max(record["trained_on"].values()), seed=seed)
        embed = tuner.ways(f"half-seed{seed}", texts.train, seed=seed)[SERVED]
        twins.append(Places.measure(embed, examples, prompts))
        masks.append(~np.isin(tasks, names_in(half)))
    pool, asked = sample_pool(examples, prompts, adapters)
    old, new = (Places.measure(embed, pool, asked) for embed in embeds)
    own, every = [prompt["task"] for prompt in asked], np.ones(len(asked), bool)
    return {
        "trained_on": trained,
        "tasks it was not tuned on": compare(before, [after], [~learnt], tasks),
        "tasks it was tuned on, dev prompts": compare(before, [after], [learnt], tasks),
        "tuned on half of its tasks, the other tasks": compare(before, twins, masks, tasks),
        "sample adapters among strangers": compare(old, [new], [every], own),
    }


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
