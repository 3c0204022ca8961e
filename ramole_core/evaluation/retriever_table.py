"""The tuned retriever by the LoraRetriever paper's protocol, and the shipped one on unseen tasks.

    python -m ramole_core.evaluation.retriever_table --data DATA

Pool: the 48 LoRAs of the paper, each with 20 sample inputs; prompts of the same 48 tasks (arXiv
2402.09997, table 2). A run tunes on the samples of a share of the tasks, drawn by its seed, and is
served as anything else: by an `Encoder`, a mean over samples, a cosine. The prompts take no part in
any choice. With `merged`, tasks that share their instructions (`TWINS`) count as one. Intervals are
bootstrapped over prompts, after averaging a prompt over seeds. Runs that the file holds already are
not made again.
"""

import json
import shlex
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from ramole_core.evaluation.retriever_places import TWINS, Places, summarise
from ramole_core.pool.words import parse_examples
from ramole_core.retrieval.benchmark import FIRST, POOL
from ramole_core.retrieval.encoder import Encoder
from ramole_core.settings import REPOSITORY, load_settings
from ramole_core.training.card import versions
from ramole_core.training.progress import show_progress
from ramole_core.training.retriever import train_retriever
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


def split_tasks(names: list[str], *, share: float, seed: int) -> list[str]:
    """The tasks that a run is tuned on."""
    order = np.random.default_rng(seed).permutation(len(names))
    return [names[n] for n in sorted(order[: round(share * len(names))])]


def tuned_places(
    recipe: RetrieverRecipe,
    tasks: Sequence[str],
    *,
    examples: Mapping[str, Sequence[str]],
    prompts: Sequence[dict],
    data_dir: Path,
    label: str,
) -> Places:
    """Tune on the examples of `tasks`, then measure the served encoder."""
    with tempfile.TemporaryDirectory() as folder, show_progress(label) as report:
        train_retriever(
            recipe,
            texts={name: examples[name] for name in tasks},
            out_dir=Path(folder),
            data_dir=data_dir,
            report=report,
        )
        encoder = Encoder(data_dir=data_dir, adapter=Path(folder))
        return Places.measure(encoder, examples, prompts)


def unseen_tasks(encoder: Encoder, data: Path, *, rows: int) -> tuple[Places, list[str]]:
    """Dev prompts among all task folders of the data, each an adapter with 20 training inputs."""
    folders = sorted(path.parent for path in data.glob("*/dev.jsonl"))
    tasks = [read_task(folder) for folder in folders]
    examples = {task.name: [row.inputs for row in task.train[:EXAMPLES]] for task in tasks}
    prompts = [
        {"task": task.name, "inputs": row.inputs} for task in tasks for row in task.dev[:rows]
    ]
    return Places.measure(encoder, examples, prompts), [prompt["task"] for prompt in prompts]


def sample_pool(encoder: Encoder, data: Path, adapters: Path) -> tuple[Places, list[str]]:
    """All dev prompts of the sample adapters, among them and every other task of the data."""
    names = sorted(path.parent.name for path in adapters.glob("[!_]*/examples.jsonl"))
    examples: dict[str, list[str]] = {}
    for name in names:
        examples[name] = parse_examples((adapters / name / "examples.jsonl").read_bytes())[0]
    prompts = [
        {"task": name, "inputs": row.inputs} for name in names for row in read_task(data / name).dev
    ]
    for folder in sorted(path.parent for path in data.glob("*/train.jsonl")):
        if folder.name not in names:
            rows = read_task(folder).train[:EXAMPLES]
            examples[folder.name] = [row.inputs for row in rows]
    return Places.measure(encoder, examples, prompts), [prompt["task"] for prompt in prompts]


class Report:
    """The results file: every run's places as soon as they are known."""

    def __init__(self, path: Path, *, recipe: RetrieverRecipe, encoder: str):
        """Goes on with `path` where it was made by the same recipe and encoder."""
        self._path = path
        self.held: dict = {}
        told = {"recipe": asdict(recipe), "encoder_checksum": encoder}
        told = json.loads(json.dumps(told))  # tuples are lists in a file
        if path.is_file():
            held = json.loads(path.read_text(encoding="utf-8"))
            if all(held.get(key) == value for key, value in told.items()):
                self.held = held
        self.held.update(told)
        self.held.setdefault("runs", {})

    def places(self, run: str) -> Places | None:
        """What a run measured; None when it was not made yet."""
        found = self.held["runs"].get(run)
        return Places.read(found) if found else None

    def keep(self, run: str, places: Places, **facts: object) -> None:
        """Write a run down."""
        self.held["runs"][run] = {**places.write(), **facts}
        self.write()

    def write(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text(json.dumps(self.held, indent=1) + "\n", encoding="utf-8")


def main(
    data: Annotated[Path, typer.Option(help="Folder of task folders and retrieval/.")] = Path(
        "data"
    ),
    seeds: Annotated[int, typer.Option(help="Splits of the tasks at 40 %.")] = 5,
    seeds_all: Annotated[int, typer.Option(help="Runs on all tasks.")] = 2,
    rows: Annotated[int, typer.Option(help="Dev prompts of each task of the data.")] = 40,
    out: Annotated[Path, typer.Option(help="The JSON file.")] = (
        REPOSITORY / "results" / "retriever.json"
    ),
) -> None:
    """Tune on shares of the paper's pool, and measure the shipped retriever."""
    settings = load_settings()
    loras = json.loads((data / "retrieval" / "lora_samples.json").read_text())[:POOL]
    prompts = json.loads((data / "retrieval" / "queries.json").read_text())
    examples = {x["model_name"]: [row["inputs"] for row in x["sample"]] for x in loras}
    tasks = np.array([prompt["task"] for prompt in prompts])
    untuned = Encoder(data_dir=settings.data_dir)
    shipped = Encoder(data_dir=settings.data_dir, adapter=settings.adapters_dir / "_retriever")
    recipe = RetrieverRecipe()
    report = Report(out, recipe=recipe, encoder=untuned.checksum)
    for name, encoder in {"untuned": untuned, "shipped": shipped}.items():
        if encoder.tuned or name == "untuned":
            known = report.held["runs"].get(name, {}).get("checksum") == encoder.checksum
            if not known:
                measured = Places.measure(encoder, examples, prompts)
                report.keep(name, measured, checksum=encoder.checksum)
    shares = {0.4: seeds, 1.0: seeds_all}
    for share, count in shares.items():
        for seed in range(count):
            run = f"{share:.0%}, seed {seed}"
            chosen = split_tasks(list(examples), share=share, seed=seed)
            if report.places(run) is None:
                measured = tuned_places(
                    seeded(recipe, seed),
                    chosen,
                    examples=examples,
                    prompts=prompts,
                    data_dir=settings.data_dir,
                    label=run,
                )
                report.keep(run, measured, tuned_on=chosen)
    report.held["summary"] = summary_of(report, tasks, shares=shares)
    if shipped.tuned:
        report.held["shipped"] = measure_shipped(
            untuned, shipped, data=data, adapters=settings.adapters_dir, rows=rows
        )
    report.held |= {
        "command": shlex.join(
            ["python", "-m", "ramole_core.evaluation.retriever_table", *sys.argv[1:]]
        ),
        "pool": len(examples),
        "prompts": len(prompts),
        "twins": TWINS,
        "published": PUBLISHED,
        "versions": versions(),
    }
    report.write()
    show(report.held)


def seeded(recipe: RetrieverRecipe, seed: int) -> RetrieverRecipe:
    """The recipe with another seed."""
    return replace(recipe, schedule=replace(recipe.schedule, seed=seed))


def summary_of(report: Report, tasks: np.ndarray, *, shares: Mapping[float, int]) -> dict:
    """The table: retriever x (all prompts, those of tuned tasks, those of unseen tasks)."""
    untuned = report.places("untuned")
    assert untuned is not None
    everything = np.ones(len(tasks), bool)
    table = {"untuned": {"all": summarise([untuned], [everything])}}
    if shipped := report.places("shipped"):
        table["shipped"] = {"all": summarise([shipped], [everything], against=untuned)}
    for share, count in shares.items():
        names = [f"{share:.0%}, seed {seed}" for seed in range(count)]
        runs = [places for name in names if (places := report.places(name))]
        tuned = [np.isin(tasks, report.held["runs"][name]["tuned_on"]) for name in names]
        rows = {"all": summarise(runs, [everything] * count, against=untuned)}
        rows["tuned"] = summarise(runs, tuned, against=untuned)
        if share < 1:
            unseen = [~mask for mask in tuned]
            rows["unseen"] = summarise(runs, unseen, against=untuned)
            rows["unseen, untuned"] = summarise([untuned] * count, unseen)
        table[f"tuned on {share:.0%}"] = rows
    return table


def measure_shipped(
    untuned: Encoder, shipped: Encoder, *, data: Path, adapters: Path, rows: int
) -> dict:
    """The shipped retriever against the untuned one on the data's dev prompts."""
    record = json.loads((adapters / "_retriever" / "retriever.json").read_text(encoding="utf-8"))
    trained = [name for group in record["trained_on"] for name in group.split("+")]
    found = {"checksum": shipped.checksum, "trained_on": trained}
    before, tasks = unseen_tasks(untuned, data, rows=rows)
    after, _ = unseen_tasks(shipped, data, rows=rows)
    for name, mask in (
        ("unseen tasks of the data", ~np.isin(tasks, trained)),
        ("its own tasks, dev prompts", np.isin(tasks, trained)),
    ):
        found[name] = {
            "prompts": int(mask.sum()),
            "untuned": summarise([before], [mask]),
            "shipped": summarise([after], [mask], against=before),
        }
    before, _ = sample_pool(untuned, data, adapters)
    after, tasks = sample_pool(shipped, data, adapters)
    mask = np.ones(len(tasks), bool)
    found["sample adapters among strangers"] = {
        "prompts": len(tasks),
        "untuned": summarise([before], [mask]),
        "shipped": summarise([after], [mask], against=before),
    }
    return found


def show(held: Mapping) -> None:
    """The table on the terminal, the paper's figures first."""
    table = Table("retriever", "prompts", *(f"top-{k}" for k in FIRST), "twins merged")
    for name, figures in held["published"].items():
        table.add_row(f"paper, {name}", "all", *map(str, figures), "")
    for name, parts in held["summary"].items():
        for part, found in parts.items():
            cells = [f"{found['plain'][f'top{k}']['mean']:.1f}" for k in FIRST]
            merged = " ".join(f"{found['merged'][f'top{k}']['mean']:.1f}" for k in FIRST)
            table.add_row(name, part, *cells, merged)
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
