"""The S-LoRA workload further: the paper's sweeps, PEFT beside, and ten thousand small adapters.

one at a time  as they arrive, with one parameter of the workload at other values
peft, ours     all at once over a hundred adapters; PEFT in full batches, one after another
small          all at once, over few and over thousands of adapters of rank 1 and 2
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from lab.benchmarks.peers import OneEach, base_loader
from lab.benchmarks.ratios import REAL_TIME
from lab.benchmarks.record import Cell, Measured, Record
from lab.benchmarks.serving import run_workload, workload_of
from lab.benchmarks.stage import Stage
from lab.benchmarks.workload import Workload, make_arrivals
from ramole_core.cli.timed_engine import OurEngine, make_prompts

PART = "arrivals"
SWEEPS = {"alpha": (1.0, 0.3, 0.1), "cv": (2.0, 4.0), "share": (0.4, 1.2)}
"""`alpha`: how evenly adapters are asked for, 1 is uniform; `cv`: how unevenly requests come, 1 is
Poisson's; `share`: of the requests a second that the engine makes of all at once."""


def arrival_cells(stage: Stage, record: Record) -> Iterator[Sequence[Cell]]:
    """The cells of this part, over the adapters of the part `slora`."""
    s = stage.sizes
    names = stage.make_many(max(s.serve_adapters))
    engine = OurEngine(stage.open_ramole(stage.many(len(names))))
    engine.pack(names, tell=lambda done: stage.tell("packing the adapters", done))
    beside = workload_of(s, adapters=min(s.peer_adapters, len(names)))
    run_workload(engine, replace(beside, requests=4), names, kind="warm")
    load = base_loader(engine.ramole.base, data_dir=stage.settings.data_dir)
    peer = OneEach(load, [stage.many(len(names)) / n for n in names[: beside.adapters]])

    def ours(name: str, asked: Workload, kind: str = "warm", **facts: object) -> Cell:
        def measure() -> Measured:
            seeded = replace(asked, seed=record.count(PART, name))
            return run_workload(engine, seeded, names, kind=kind)

        times = 1 if kind == REAL_TIME else s.serve_repetitions
        return Cell(name, measure, facts={"adapters": asked.adapters, **facts}, repetitions=times)

    yield [
        ours(f"ours/n={beside.adapters}", beside),
        Cell(
            f"peft/n={beside.adapters}",
            lambda: serve_by_peft(peer, beside, names, rows=engine.ramole.settings.max_batch),
            facts={"adapters": beside.adapters},
        ),
    ]
    del peer
    cells = record.parts[PART]["cells"]
    full = cells[f"ours/n={beside.adapters}"]["summary"]["requests_per_second"]["median"]
    base = workload_of(s, adapters=min(s.sweep_adapters, len(names)))
    for parameter, values in SWEEPS.items():
        swept = []
        for value in values:
            rate = full * (value if parameter == "share" else s.serve_share)
            asked = replace(base, rate=rate, requests=max(2, int(rate * s.serve_seconds)))
            if parameter != "share":
                asked = replace(asked, **{parameter: value})
            swept.append(ours(f"one at a time/{parameter}={value:g}", asked, REAL_TIME, rate=rate))
        yield swept
    stage.close()
    yield small_cells(stage, record)


def small_cells(stage: Stage, record: Record) -> Sequence[Cell]:
    """Cells over few and over many small adapters."""
    s = stage.sizes
    names = stage.make_many(s.small_adapters, small=True)
    began = time.perf_counter()
    engine = OurEngine(stage.open_ramole(stage.many(len(names), small=True)))
    record.note(PART, "open_seconds", round(time.perf_counter() - began, 1))
    engine.pack(names, tell=lambda done: stage.tell(f"packing {len(names)} adapters", done))

    def cell(kind: str, n: int) -> Cell:
        name, asked = f"small {kind}/n={n}", workload_of(s, adapters=n)

        def measure() -> Measured:
            seeded = replace(asked, seed=record.count(PART, name))
            return run_workload(engine, seeded, names, kind=kind)

        return Cell(name, measure, facts={"adapters": n}, repetitions=s.serve_repetitions)

    sizes = (min(s.serve_adapters), len(names))
    return [cell(kind, n) for kind in ("warm", "cold") for n in sizes]


def serve_by_peft(
    peer: OneEach, workload: Workload, names: Sequence[str], *, rows: int
) -> Measured:
    """All requests by PEFT, `rows` in one batch, each batch until its longest answer is there.

    Prompts of a batch have the length of its longest, so that no time goes into padding.
    """
    arrivals = make_arrivals(workload)
    batches = [arrivals[at : at + rows] for at in range(0, len(arrivals), rows)]
    seconds, first = 0.0, []
    for batch in batches:
        length = max(one.prompt_tokens for one in batch)
        prompts = make_prompts(peer.base.tokenizer, tokens=length, count=len(batch))
        adapters = [names[one.adapter] for one in batch]
        made = peer.measure(prompts, adapters, max(one.new_tokens for one in batch))
        first += [seconds + made["prefill_seconds"]] * len(batch)
        seconds += made["seconds"]
    return {
        "requests_per_second": len(arrivals) / seconds,
        "tokens_per_second": sum(one.new_tokens for one in arrivals) / seconds,
        "first_token_seconds": float(np.mean(first)),
        "distinct_adapters": float(len({one.adapter for one in arrivals})),
    }
