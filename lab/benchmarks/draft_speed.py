"""What draft tokens earn: seconds a token with and without, on dev prompts of the pool's tasks.

    python -m lab draft_speed --data DATA

Each prompt is asked alone, as the page asks it, in turns with drafts and without, and both give the
same text or the measurement ends. Counted is from the first token to the last; short answers are
asked again until MIN_COUNTED tokens are. The gain of an adapter comes from the pass that
is not counted. A run that was stopped goes on with the tasks that its file lacks.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from lab import harness
from lab.benchmarks.draft_peers import PEERS, measure_peers, take_turns
from ramole_core import Ramole, Request
from ramole_core.base.fetch import unpack_gguf
from ramole_core.settings import load_settings


def measure(ramole: Ramole, prompts: Sequence[str], *, new: int, passes: int) -> dict[str, object]:
    """Tokens a second of both ways, their ratio, and how many drafts were accepted."""
    scheduler = ramole.engine.scheduler
    usual = scheduler.sizes

    def answer(prompt: str, drafts: bool) -> tuple[float, int, str]:
        scheduler.sizes = replace(usual, draft_rows=usual.draft_rows if drafts else 0)
        (one,) = ramole.generate([Request(prompt, max_new_tokens=new, trace=False)])
        return one.seconds - one.first_token_seconds, one.new_tokens - 1, one.text

    before = ramole.stats()
    try:
        found = take_turns(answer, prompts, passes=passes)
    finally:
        scheduler.sizes = usual
    assert found.pop("same_answers", True), "a draft has changed an answer"
    after = ramole.stats()
    fed = after["draft_tokens"] - before["draft_tokens"]
    accepted = after["accepted_tokens"] - before["accepted_tokens"]
    return {**found, "accepted": round(accepted / fed, 2) if fed else None}


def main(
    data: harness.Data = harness.DATA,
    rows: harness.Rows = 10,
    skip: Annotated[int, typer.Option(help="Dev rows that are left out before them.")] = 40,
    tasks: harness.Tasks = "",
    new: Annotated[int, typer.Option(help="Most new tokens.")] = 96,
    passes: Annotated[int, typer.Option(help="Counted passes over each task.")] = 5,
    peers: Annotated[
        bool, typer.Option("--peers", help="Prompt lookup of transformers and llama.cpp too.")
    ] = False,
    threads: harness.Threads = 0,
    out: harness.Out = harness.RESULTS / "drafts.json",
) -> None:
    """Measure it, and write the file."""
    with harness.served() as ramole, TemporaryDirectory() as folder:
        names = harness.words(tasks) or [card.name for card in ramole.pool.cards()]
        drawn = harness.read_tasks(data, names, rows=rows, skip=skip)
        results = harness.Results(out, harness.facts_of(ramole), rows=rows, skip=skip, new=new)
        same = results.take_over("tasks", where=("base_checksum", "rows", "skip", "new", "machine"))
        found: dict[str, dict[str, object]] = dict(results.held.get("tasks", {})) if same else {}  # pyright: ignore
        gguf = unpack_gguf(load_settings().base_model, Path(folder)) if peers else Path()
        for name, task in drawn.items():
            prompts = [row.inputs for row in task.dev]
            if name not in found:
                found[name] = measure(ramole, prompts, new=new, passes=passes)
            elif not peers or set(PEERS) <= set(found[name]):
                continue
            if peers:
                found[name] |= measure_peers(
                    ramole, name, prompts, gguf=gguf, new=new, passes=passes
                )
            typer.echo(f"{name}: {found[name]}", err=True)
            overall = mean(float(str(one["ratio"])) for one in found.values() if one["ratio"])
            results.write(tasks=found, mean_ratio=round(overall, 2))
