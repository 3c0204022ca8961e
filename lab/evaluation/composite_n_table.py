"""The table of *composite-n*: several questions of several tasks in one prompt (`composite_n.py`).

`python -m lab.evaluation.composite_n_table --data DATA --n 2,3 --systems meteora,base`
"""

import json
import sys
from datetime import date
from pathlib import Path
from typing import Annotated

import typer

from lab.evaluation.cells import Cells
from lab.evaluation.command import opened, own_facts, shared_facts
from lab.evaluation.composite_n import SHOTS, Writing, make_composite_n, short
from lab.evaluation.evaluate import read_rows
from lab.evaluation.situation_run import run_situations
from lab.evaluation.situation_tables import make_situation_table
from lab.evaluation.systems import read_way
from ramole_core.settings import REPOSITORY
from ramole_core.terminal.recorded_command import recorded_command

MODULE = "lab.evaluation.composite_n_table"


def main(
    data: Annotated[Path, typer.Option(help="Folder of task folders.")] = Path("data"),
    n: Annotated[str, typer.Option(help="Questions in a prompt, comma separated.")] = "2,3",
    systems: Annotated[str, typer.Option(help="Comma separated; METHOD@OPTION=VALUE too.")] = (
        "meteora,moe,ramole_plus,mixture,similarity,base"
    ),
    rows: Annotated[int, typer.Option(help="Prompts of each n.")] = 40,
    skip: Annotated[int, typer.Option(help="Dev rows of each task left out before them.")] = 0,
    named: Annotated[bool, typer.Option(help="Name the right adapters to every system.")] = False,
    shots: Annotated[int, typer.Option(help="Examples before the questions.")] = SHOTS,
    k: Annotated[int, typer.Option(help="Adapters that are found, at least n.")] = 3,
    tokens: Annotated[int, typer.Option(help="Longest answer to one question.")] = 40,
    seed: Annotated[int, typer.Option(help="Of the sets and the distractors.")] = 0,
    work: Annotated[Path, typer.Option(help="Where cells are kept, to go on from.")] = Path(
        "evaluation"
    ),
    out: Annotated[Path, typer.Option(help="The JSON file.")] = (
        REPOSITORY / "results" / "composite_n.json"
    ),
) -> None:
    """Ask several questions in one prompt; the same command goes on where it was stopped."""
    wanted = [name.strip() for name in systems.split(",") if name.strip()]
    for name in wanted:
        read_way(name)
    with opened(data, seed=seed) as (ramole, crowd):
        every = read_rows(data, list(crowd.samples), split="dev", count=200, skip=skip)
        examples = read_rows(data, list(crowd.samples), split="train", count=200)
        facts = shared_facts(ramole) | {"named": named, "k": k, "tokens": tokens}
        cells = Cells(work, facts, lambda system: own_facts(ramole, system))
        cells.release()
        metrics = {task.task: task.metric for task in every}
        situations = [
            make_composite_n(
                Writing(ramole, metrics, k, tokens, named),
                short(every),
                short(examples),
                n=int(count),
                sets=rows,
                systems=wanted,
                hidden=crowd.distractors,
                seed=seed,
                shots=shots,
            )
            for count in n.split(",")
        ]
        told = lambda line: print(line, file=sys.stderr)  # noqa: E731
        run_situations(situations, cells, systems=wanted, told=told)
    tables = {one.name: make_situation_table(one, cells, systems=wanted) for one in situations}
    report = {
        "command": recorded_command(MODULE),
        "date": date.today().isoformat(),
        **facts,
        "shots": shots,
        "rows": rows,
        "seed": seed,
        "situations": tables,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    for table in tables.values():
        for system, row in table["systems"].items():
            print(table["what"], system, {m: one["mean"] for m, one in row.items()})


if __name__ == "__main__":
    typer.run(main)
