"""`python -m ramole_core evaluate`: systems x tasks x situations, resumable, into one JSON file."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lab import harness
from ramole_core.errors import RamoleError, did_you_mean
from ramole_core.terminal.console import say, write_json
from ramole_core.terminal.recorded_command import recorded_command

if TYPE_CHECKING:
    from lab.evaluation.situations import Crowd
    from ramole_core.ramole import Ramole

SITUATIONS = (
    "iid,ood,crowded,phrased,follow-up,change,uploads,open,unseen,switch,composite,permuted,blind"
)
"""As they run; said here so that help needs no torch."""
OUT = "evaluation.json"
"""In WORK, unless another file is named: the tables of the pool that ships stay."""


def evaluate(
    data: harness.Data = harness.DATA,
    split: harness.Split = "dev",
    rows: Annotated[int, typer.Option(help="Rows of each task.")] = 20,
    skip: Annotated[int, typer.Option(help="Rows of each task left out before them.")] = 0,
    tasks: Annotated[
        str, typer.Option(help="Comma separated; if empty, those of the pool that have rows.")
    ] = "",
    systems: Annotated[str, typer.Option(help="Comma separated; all if empty.")] = "",
    situations: Annotated[str, typer.Option(help=f"Of {SITUATIONS}; all that can be.")] = "",
    quantization: Annotated[
        Literal["nf4", "int4", "none"], typer.Option(help="How the base is rounded.")
    ] = "int4",
    head: Annotated[
        Literal["full", "int8"], typer.Option(help="How the output head is held.")
    ] = "full",
    k: Annotated[int, typer.Option(help="Adapters that a system mixes.")] = 3,
    tokens: Annotated[int, typer.Option(help="Longest answer.")] = 50,
    seed: Annotated[int, typer.Option(help="Of the distractors.")] = 0,
    workers: Annotated[int, typer.Option(help="Processes; each gets its share of the cores.")] = 1,
    trial: Annotated[
        int,
        typer.Option(help="So many units of so many questions in situations; estimates the whole."),
    ] = 0,
    work: harness.Work = Path("evaluation"),
    out: Annotated[
        Path | None, typer.Option(help="The JSON file; unsaid: WORK/evaluation.json.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    worker: Annotated[bool, typer.Option(hidden=True)] = False,
) -> None:
    """Compare the systems in every situation, and write the tables.

    Every cell (situation, system, task or other unit) is kept in WORK as soon as it is whole; the
    same command goes on where it was stopped, and says how long the rest takes. Deletes nothing.
    """
    from lab.evaluation.cells import Cells
    from lab.evaluation.evaluate import make_row_situations, read_rows
    from lab.evaluation.facts import ask_once, clean_commit, own_facts, rows_digest, shared_facts
    from lab.evaluation.further import FURTHER, Material
    from lab.evaluation.report import make_report, show_report
    from lab.evaluation.situation_run import count_left, estimate_whole, run_situations
    from lab.evaluation.situations import add_own, situations_of, tasks_of
    from lab.evaluation.systems import BOUNDS, ORACLE, ORDER, Ask, describe

    wanted = harness.words(systems)
    for name in wanted:
        describe(name)
    named = harness.words(situations)
    if unknown := [name for name in named if name not in harness.words(SITUATIONS)]:
        near = did_you_mean(unknown[0], harness.words(SITUATIONS))
        raise RamoleError(f"Unknown situation {unknown[0]!r}; choose of {SITUATIONS}.{near}")
    command = recorded_command("ramole_core")
    if split != "dev" and not worker and out is None:
        raise RamoleError(
            f"Rows of {split} are asked once: name the file by --out, and --rows and --systems."
        )
    others = [] if worker else _start_others(workers)
    with opened(data, seed=seed, quantization=quantization, head=head) as (ramole, crowd):
        add_own(ramole.pool, harness.words(tasks))
        names = harness.words(tasks) or tasks_of(data, crowd.samples, situations=named)
        adapters = {card.name for card in ramole.pool.cards()} - set(crowd.distractors)
        chosen = named or situations_of(
            harness.words(SITUATIONS), data, crowd, names, adapters=adapters, told=say
        )
        places = [name for name in chosen if name not in FURTHER]
        strangers = [name for name in names if name not in adapters]
        if not wanted and strangers:
            say(f"Without perfect and oracle: no adapter is named {strangers[0]}.")
        wanted = wanted or [one for one in (*ORDER, ORACLE) if not (strangers and one in BOUNDS)]
        asked = read_rows(data, names, split=split, count=rows, skip=skip)
        ask = Ask(k=k, tokens=tokens)
        facts = shared_facts(ramole, crowd, quantization=quantization, head=head)
        facts |= {"split": split, "rows": rows, "k": k, "tokens": tokens, "seed": seed}
        facts |= {"questions": rows_digest(asked)} | ({"skipped": skip} if skip else {})
        if split != "dev":
            facts |= {"commit": clean_commit()}
            ask_once(split, facts, command, (out or work / OUT).parent)
        cells = Cells(work, facts, lambda system: own_facts(ramole, system))
        out = out or work / OUT
        archive = out.with_name(f"{out.stem}_cells.json.gz")
        if not worker:
            cells.unpack(archive)
        by_row = make_row_situations(ramole, cells, crowd, tasks=asked, situations=places, ask=ask)
        run_situations(by_row, cells, systems=wanted, told=say)
        material = Material(ramole, crowd, data, asked, ask, seed, split, rows, skip)
        further = [FURTHER[name](material) for name in chosen if name in FURTHER]
        whole, further = further, [one.cut(trial) if trial else one for one in further]
        every = [*by_row, *further]
        pace = run_situations(every, cells, systems=wanted, told=say)
        if worker:
            return
        if any([other.wait() for other in others]):  # what they had claimed is free now
            pace = run_situations(every, cells, systems=wanted, told=say)
        if missing := sum(count_left(every, cells, systems=wanted).values()):
            raise RamoleError(f"{missing} questions have no answer yet; run the command again.")
        cells.pack(archive)
        hours = estimate_whole(whole, pace, systems=wanted)
        facts |= {"command": command, "date": date.today().isoformat()}
        facts |= {"trial": trial} if trial else {}
        report = make_report(
            cells, asked, systems=wanted, places=places, further=further, hours=hours, facts=facts
        )
    harness.write_report(out, report)
    if as_json:
        write_json({"out": str(out), **report})
    else:
        show_report(report)


@contextmanager
def opened(
    data: Path, *, seed: int, quantization: str = "int4", head: str = "full"
) -> Iterator[tuple["Ramole", "Crowd"]]:
    """The sample pool and the crowd, in a data folder of their own, on the rounded base."""
    from lab.evaluation.compressed_base import write_compressed
    from lab.evaluation.situations import make_crowd

    with tempfile.TemporaryDirectory() as folder:
        base = write_compressed(harness.base_folder(), Path(folder) / "rounded", how=quantization)
        held = {"quantization": "none", "head": head, "host_cache_mb": 4096}
        with harness.served(base_model=base, **held) as ramole:
            yield ramole, make_crowd(ramole.pool, data, seed=seed)


def _start_others(workers: int) -> list[subprocess.Popen]:
    """Further processes for the same cells."""
    share = str(max(1, (os.cpu_count() or 1) // workers))
    if workers > 1:
        import torch

        torch.set_num_threads(int(share))
    environment = os.environ | {"OMP_NUM_THREADS": share}
    words = [sys.executable, "-m", "ramole_core", *sys.argv[1:], "--worker"]
    return [subprocess.Popen(words, env=environment) for _ in range(workers - 1)]
