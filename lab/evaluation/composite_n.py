"""The table of *composite-n*: several questions of several tasks in one prompt.

    python -m lab composite_n --data DATA --n 2,3 --systems meteora,base

How prompts are made and answers are scored: `composite_sets.py`.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from lab import harness
from lab.evaluation.cells import Cells
from lab.evaluation.command import opened, own_facts, shared_facts
from lab.evaluation.composite_sets import SHOTS, Writing, make_composite_n, short
from lab.evaluation.evaluate import read_rows
from lab.evaluation.situation_run import run_situations
from lab.evaluation.situation_tables import make_situation_table, show_situation
from lab.evaluation.systems import read_way


def main(
    data: harness.Data = harness.DATA,
    n: Annotated[str, typer.Option(help="Questions in a prompt, comma separated.")] = "2,3",
    systems: Annotated[str, typer.Option(help="Comma separated; METHOD@OPTION=VALUE too.")] = (
        "meteora,moe,ramole_plus,mixture,similarity,base"
    ),
    rows: Annotated[int, typer.Option(help="Prompts of each n.")] = 40,
    skip: harness.Skip = 0,
    named: Annotated[bool, typer.Option(help="Name the right adapters to every system.")] = False,
    shots: Annotated[int, typer.Option(help="Examples before the questions.")] = SHOTS,
    k: Annotated[int, typer.Option(help="Adapters that are found, at least n.")] = 3,
    tokens: Annotated[int, typer.Option(help="Longest answer to one question.")] = 40,
    seed: harness.Seed = 0,
    threads: harness.Threads = 0,
    work: harness.Work = Path("evaluation"),
    out: harness.Out = harness.RESULTS / "composite_n.json",
) -> None:
    """Ask several questions in one prompt; the same command goes on where it was stopped."""
    wanted = harness.words(systems)
    for name in wanted:
        read_way(name)
    with opened(data, seed=seed) as (ramole, crowd):
        every = read_rows(data, list(crowd.samples), split="dev", count=200, skip=skip)
        examples = read_rows(data, list(crowd.samples), split="train", count=200)
        facts = shared_facts(ramole) | {"named": named, "k": k, "tokens": tokens}
        cells = Cells(work, facts, lambda system: own_facts(ramole, system))
        cells.release()
        metrics = {task.task: task.metric for task in every}
        writing = Writing(ramole, metrics, k, tokens, named)
        situations = [
            make_composite_n(
                writing,
                short(every),
                short(examples),
                n=int(count),
                sets=rows,
                systems=wanted,
                hidden=crowd.distractors,
                seed=seed,
                shots=shots,
            )
            for count in harness.words(n)
        ]
        told = lambda line: print(line, file=sys.stderr)  # noqa: E731
        run_situations(situations, cells, systems=wanted, told=told)
        tables = {one.name: make_situation_table(one, cells, systems=wanted) for one in situations}
        results = harness.Results(out, facts, skipped=skip, shots=shots, rows=rows, seed=seed)
        results.write(situations=tables)
    for name, table in tables.items():
        Console().print(show_situation(name, table))
