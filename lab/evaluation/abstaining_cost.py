"""What it costs that the base answers where nothing fits: rows whose own adapter is masked.

    python -m lab.evaluation.abstaining_cost --data DATA

Of each task's dev rows, those that the system leaves to the base are answered both ways, by the
base and by the mixture that it would otherwise be; all others are answered alike and differ by 0.
"""

import json
from datetime import date
from pathlib import Path
from typing import Annotated

import typer

from lab.evaluation.base_table import as_shipped
from lab.evaluation.evaluate import read_rows
from lab.evaluation.intervals import bootstrap
from lab.evaluation.metrics import METRICS
from ramole_core.ramole import Ramole
from ramole_core.request import Request
from ramole_core.settings import REPOSITORY
from ramole_core.terminal.recorded_command import recorded_command
from ramole_core.training.card import versions

MODULE = "lab.evaluation.abstaining_cost"
METHOD = "ramole_plus"
TOKENS = 50


def main(
    data: Annotated[Path, typer.Option(help="Folder of task folders.")] = Path("data"),
    rows: Annotated[int, typer.Option(help="Dev rows of each task.")] = 20,
    skip: Annotated[int, typer.Option(help="Rows of each task that are passed over first.")] = 0,
    out: Annotated[Path, typer.Option(help="The JSON file.")] = (
        REPOSITORY / "results" / "abstaining_cost.json"
    ),
) -> None:
    """Measure it, and write the file."""
    with Ramole() as ramole:
        names = [card.name for card in ramole.pool.cards()]
        tasks = read_rows(data, names, split="dev", count=rows, skip=skip)
        asked = [(task, row) for task in tasks for row in task.rows]
        left = as_shipped(
            ramole, [row.inputs for _, row in asked], [task.task for task, _ in asked]
        )
        chosen = [pair for pair, is_left in zip(asked, left, strict=True) if is_left]
        shared = {"max_new_tokens": TOKENS, "trace": False}
        base = ramole.generate([Request(row.inputs, method="base", **shared) for _, row in chosen])
        mixed = ramole.generate(
            [
                Request(row.inputs, method=METHOD, exclude=(task.task,), abstain=False, **shared)
                for task, row in chosen
            ]
        )
        encoder = ramole.retriever.encoder_checksum
    lost = {task.task: 0.0 for task in tasks}
    counts = dict.fromkeys(lost, 0)
    for (task, row), alone, mixture in zip(chosen, base, mixed, strict=True):
        score = METRICS[task.metric]
        lost[task.task] += score(mixture.text, row.targets) - score(alone.text, row.targets)
        counts[task.task] += 1
    sizes = {task.task: len(task.rows) for task in tasks}
    costs = {name: lost[name] / sizes[name] for name in lost}
    interval = bootstrap(list(costs.values()))
    report = {
        "command": recorded_command(MODULE),
        "date": date.today().isoformat(),
        "versions": versions(),
        "encoder": encoder,
        "rows": sum(sizes.values()),
        "left_to_the_base": sum(counts.values()),
        "cost": {
            "mean": round(interval.mean, 2),
            "low": round(interval.low, 2),
            "high": round(interval.high, 2),
        },
        "by_task": {name: {"left": counts[name], "cost": round(costs[name], 2)} for name in costs},
    }
    out.write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    print(json.dumps(report["cost"]), report["left_to_the_base"], "of", report["rows"])


if __name__ == "__main__":
    typer.run(main)
