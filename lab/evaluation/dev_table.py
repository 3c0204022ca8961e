"""Each adapter on its own dev rows, against the base, chance and the commonest training answer.

    python -m lab dev_table --data DATA [NAME ...]

Greedy answers of at most 50 tokens and, where every row lists options, the likeliest option. Every
number has a 95 % bootstrap interval over rows, and the adapter's gain over each rival is paired.
Entries are merged into one JSON file, by adapter.
"""

import shlex
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from peft import PeftModel

from lab import harness
from lab.evaluation.answers import answer_rows, likeliest_options, options_of
from lab.evaluation.intervals import bootstrap, in_words, paired_difference
from lab.evaluation.metrics import score
from ramole_core.base.model import BaseModel, dequantised
from ramole_core.errors import RamoleError
from ramole_core.settings import load_settings
from ramole_core.training.configured_base import load_configured_base
from ramole_core.training.rows import Row, Task

SCORINGS = ("scores", "lenient", "likelihood", "verbatim")
"""By the task's metric, its lenient form, the likeliest option, and to the letter."""


def measure_adapter(
    folder: Path, task: Task, *, base: BaseModel
) -> tuple[dict, dict[str, list[str]]]:
    """One entry of the table, and the answers it was made from by system (`base`, `adapter`)."""
    dev = task.dev
    prompts = [row.inputs for row in dev]
    has_options = all(options_of(prompt) for prompt in prompts)
    answers, choices, plain = dict[str, list[str]](), dict[str, list[str]](), dequantised(base)
    for system in ("base", "adapter"):
        if system == "adapter":  # PEFT puts its layers into the plain model
            PeftModel.from_pretrained(plain, str(folder), autocast_adapter_dtype=False).eval()
        answers[system] = answer_rows(plain, base.tokenizer, prompts)
        if has_options:
            choices[system] = likeliest_options(plain, base.tokenizer, prompts)
    answers["commonest"] = choices["commonest"] = [commonest_answer(task)] * len(dev)
    entry = {
        "metric": task.metric,
        "rows": len(dev),
        "adapter_sha256": harness.checksum(folder / "adapter_model.safetensors"),
        "scores": compare(answers, dev, metric=task.metric),
        "lenient": compare(answers, dev, metric=task.metric, forgiving=True),
        "verbatim": compare(answers, dev, metric="verbatim"),
    }
    if has_options:
        entry["likelihood"] = compare(choices, dev, metric=task.metric)
    return entry, answers


def compare(
    answers: dict[str, list[str]], dev: tuple[Row, ...], *, metric: str, forgiving: bool = False
) -> dict:
    """Means with intervals, and the adapter's paired gain over each rival."""
    targets = [row.targets for row in dev]
    scores = {
        name: score(metric, given, targets, forgiving=forgiving) for name, given in answers.items()
    }
    chances = chance_scores(dev)
    if chances is not None:
        scores["chance"] = chances
    gains = {
        name: asdict(paired_difference(scores["adapter"], rival))
        for name, rival in scores.items()
        if name != "adapter"
    }
    return {**{name: asdict(bootstrap(s)) for name, s in scores.items()}, "gain_over": gains}


def chance_scores(dev: tuple[Row, ...]) -> list[float] | None:
    """What a fair guess among a row's options scores; None where rows have no options."""
    options = [options_of(row.inputs) for row in dev]
    return [100.0 / len(each) for each in options] if all(options) else None


def commonest_answer(task: Task) -> str:
    """The answer that most training rows have."""
    return Counter(row.targets for row in task.train).most_common(1)[0][0]


def beats(entry: dict) -> bool:
    """Whether the adapter's mean is above every rival's, however it is scored but to the letter."""
    return all(
        gain["mean"] > 0
        for scoring in SCORINGS[:-1]
        if scoring in entry
        for gain in entry[scoring]["gain_over"].values()
    )


def lines_of(name: str, entry: Mapping) -> Iterator[str]:
    """The entry for the terminal, a line a scoring."""
    for scoring in (scoring for scoring in SCORINGS if scoring in entry):
        spans = {**entry[scoring], "gain over base": entry[scoring]["gain_over"]["base"]}
        del spans["gain_over"]
        told = ", ".join(f"{system} {in_words(span)}" for system, span in spans.items())
        yield f"{name}, {entry['metric'] if scoring == 'scores' else scoring}: {told}"


def main(
    names: Annotated[list[str] | None, typer.Argument(help="Adapters; all if none.")] = None,
    data: harness.Data = harness.DATA,
    adapters: Annotated[Path | None, typer.Option(help="The sample pool's folder.")] = None,
    rows: harness.Rows = 50,
    skip: harness.Skip = 0,
    threads: harness.Threads = 0,
    out: harness.Out = harness.RESULTS / "adapters_dev.json",
    answers_dir: Annotated[Path | None, typer.Option(help="Keep all answers here.")] = None,
) -> None:
    """Measure adapters on the dev rows of the tasks they are named after."""
    pool = adapters or load_settings().adapters_dir
    names = names or sorted(file.parent.name for file in pool.glob("*/adapter_model.safetensors"))
    tasks = harness.read_tasks(data, names, rows=rows, skip=skip)
    base = load_configured_base()
    results = harness.Results(out, base=base, adapters={})
    if not results.take_over("adapters", where=("base_checksum", "quantization")):
        raise RamoleError(f"{out} was measured on another base model; give another file by --out.")
    entries = results.held["adapters"]
    assert isinstance(entries, dict)
    asked = ["--rows", str(rows), *(["--skip", str(skip)] if skip else []), "--data", "data"]
    for name, task in tasks.items():
        entry, answers = measure_adapter(pool / name, task, base=base)
        entry["command"] = shlex.join(["python", "-m", "lab", "dev_table", *asked, name])
        entries[name] = entry
        results.write(adapters=dict(sorted(entries.items())))
        if answers_dir is not None:
            harness.write_report(answers_dir / f"{name}.json", answers)
        print(*lines_of(name, entry), sep="\n")
        if not beats(entry):
            print(f"{name} does not beat every rival on these rows.")
