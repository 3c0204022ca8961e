"""Each adapter on its own dev rows, against the base, chance and the commonest training answer.

    python -m lab dev_table --data DATA [NAME ...]

Greedy answers of at most 50 tokens, as they are served. Every number has a 95 % bootstrap interval
over rows, and the adapter's gain over each rival is paired. Entries are merged into one JSON file,
by adapter.
"""

import shlex
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lab import harness
from lab.evaluation.answers import options_of
from lab.evaluation.intervals import bootstrap, in_words, paired_difference
from lab.evaluation.metrics import score
from ramole_core.errors import RamoleError
from ramole_core.request import Request
from ramole_core.settings import load_settings
from ramole_core.training.rows import Row, Task

if TYPE_CHECKING:
    from ramole_core.ramole import Ramole

SCORINGS = ("scores", "lenient")
"""By the task's metric, and its lenient form."""
MAX_NEW_TOKENS = 50


def measure_adapter(
    name: str, task: Task, *, ramole: "Ramole"
) -> tuple[dict, dict[str, list[str]]]:
    """One entry of the table, and the answers it was made from by system (`base`, `adapter`)."""
    systems = {"base": {"method": "base"}, "adapter": {"method": "selection", "adapters": [name]}}
    answers: dict[str, list[str]] = {}
    for system, how in systems.items():
        said = {"max_new_tokens": MAX_NEW_TOKENS, "trace": False, **how}
        asked = [Request(row.inputs, **said) for row in task.dev]
        answers[system] = [answer.text.strip() for answer in ramole.generate(asked)]
    answers["commonest"] = [commonest_answer(task)] * len(task.dev)
    entry = {
        "metric": task.metric,
        "rows": len(task.dev),
        "adapter_sha256": ramole.pool.card(name).sha256,
        "scores": compare(answers, task.dev, metric=task.metric),
        "lenient": compare(answers, task.dev, metric=task.metric, forgiving=True),
    }
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
    """Whether the adapter's mean is above every rival's, however it is scored."""
    return all(
        gain["mean"] > 0 for scoring in SCORINGS for gain in entry[scoring]["gain_over"].values()
    )


def lines_of(name: str, entry: Mapping) -> Iterator[str]:
    """The entry for the terminal, a line a scoring."""
    for scoring in SCORINGS:
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
    files = pool.glob("[!._]*/adapter_model.safetensors")
    tasks = harness.read_tasks(
        data, names or sorted(file.parent.name for file in files), rows=rows, skip=skip
    )
    asked = ["--rows", str(rows), *(["--skip", str(skip)] if skip else []), "--data", "data"]
    with harness.served(adapters_dir=pool) as ramole:
        facts = harness.facts_of(ramole)
        facts = {key: facts[key] for key in ("base_model", "base_checksum", "quantization")}
        results = harness.Results(out, facts, adapters={})
        if not results.take_over("adapters", where=("base_checksum", "quantization")):
            raise RamoleError(
                f"{out} was measured on another base model; give another file by --out."
            )
        entries = results.held["adapters"]
        assert isinstance(entries, dict)
        for name, task in tasks.items():
            entry, answers = measure_adapter(name, task, ramole=ramole)
            entry["command"] = shlex.join(["python", "-m", "lab", "dev_table", *asked, name])
            entries[name] = entry
            results.write(adapters=dict(sorted(entries.items())))
            if answers_dir is not None:
                harness.write_report(answers_dir / f"{name}.json", answers)
            print(*lines_of(name, entry), sep="\n")
            if not beats(entry):
                print(f"{name} does not beat every rival on these rows.")
