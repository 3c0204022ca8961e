"""The S-LoRA workload on our engine: N adapters on disk, of mixed ranks, one adapter a request."""

import time
from collections.abc import Sequence
from dataclasses import replace

from lab.benchmarks.interleave import Cell, Tell, measure_cells
from lab.benchmarks.machine import anonymous_mib
from lab.benchmarks.record import Measured, Record
from lab.benchmarks.stage import Stage
from lab.benchmarks.synthetic import bytes_of
from lab.benchmarks.workload import RANKS, Arrival, Workload, make_arrivals, make_ranks, replay
from ramole_core.cli.exact_prompts import make_prompt
from ramole_core.cli.timed_engine import OurEngine
from ramole_core.request import Request

ALPHA, CV = 1.0, 1.0
"""Uniform choice, the hardest on caches; Poisson arrivals."""


def measure_serving(stage: Stage, record: Record, tell: Tell) -> None:
    """Requests a second as fast as possible, and latencies in real time, for each N.

    One server with the largest N registered serves them all, in turns: a request draws from the
    first N. Each repetition has a seed of its own, the same for every N. Memory is that of this
    process, files that are mapped not counted.
    """
    s = stage.sizes
    most = max(s.serve_adapters)
    facts = ("serve_adapters", "serve_requests", "serve_rate", "serve_seconds", "serve_prompt")
    record.begin(
        "slora",
        s.facts(*facts, "serve_answer", "serve_repetitions")
        | {"ranks": RANKS, "alpha": ALPHA, "cv": CV, "method": "selection"},
    )
    if _complete(record, s.serve_adapters, s.serve_repetitions):
        return
    few = stage.make_many(min(s.serve_adapters))
    memory = {"few_registered": _loaded_mib(stage, few)}
    names = stage.make_many(most)
    began = time.perf_counter()
    engine = OurEngine(stage.open_ramole(stage.many(most)))
    record.note("slora", "open_seconds", round(time.perf_counter() - began, 1))
    memory["many_registered"] = anonymous_mib()
    began = time.perf_counter()
    engine.pack(names, tell=lambda done: tell(f"packing {most} adapters", done))
    record.note("slora", "pack_seconds", round(time.perf_counter() - began, 1))
    workload = Workload(
        adapters=most, requests=s.serve_requests, rate=s.serve_rate, alpha=ALPHA, cv=CV,
        prompt=s.serve_prompt, answer=s.serve_answer,
    )  # fmt: skip
    _replay(engine, replace(workload, requests=4), names, in_real_time=False)
    cells = []
    for n in s.serve_adapters:
        closed = replace(workload, adapters=n)
        timed = replace(closed, requests=max(2, int(s.serve_rate * s.serve_seconds)))
        cells.append(_cell(engine, closed, names, f"closed/n={n}", record))
        cells.append(_cell(engine, timed, names, f"real_time/n={n}", record))
    measure_cells(cells, part="slora", repetitions=s.serve_repetitions, record=record, tell=tell)
    memory["after_all_runs"] = anonymous_mib()
    on_disk = bytes_of(stage.shapes, make_ranks(most), stage.dtype)
    record.note("slora", "anonymous_mib", memory)
    record.note("slora", "on_disk_mib", round(on_disk / 2**20, 1))
    record.note("slora", "engine", engine.stats())


def make_requests(
    engine: OurEngine, arrivals: Sequence[Arrival], names: Sequence[str]
) -> list[Request]:
    """The requests of a workload; prompts have exactly the drawn lengths."""
    tokenizer = engine.ramole.base.tokenizer
    return [
        Request(
            make_prompt(tokenizer, tokens=arrival.prompt_tokens, seed=number),
            method="selection",
            adapters=(names[arrival.adapter],),
            max_new_tokens=arrival.new_tokens,
            ignore_eos=True,
            raw=True,
            trace=False,
        )
        for number, arrival in enumerate(arrivals)
    ]


def _cell(
    engine: OurEngine, workload: Workload, names: Sequence[str], name: str, record: Record
) -> Cell:
    """One N, as fast as possible or, once, in real time."""
    in_real_time = name.startswith("real_time")

    def measure() -> Measured:
        seeded = replace(workload, seed=record.count("slora", name))
        return _replay(engine, seeded, names, in_real_time=in_real_time)

    facts: dict[str, float] = {"adapters": workload.adapters, "requests": workload.requests}
    if in_real_time:
        facts["rate"] = workload.rate
    return Cell(name, measure, facts=facts, repetitions=1 if in_real_time else None)


def _replay(
    engine: OurEngine, workload: Workload, names: Sequence[str], *, in_real_time: bool
) -> Measured:
    arrivals = make_arrivals(workload)
    requests = make_requests(engine, arrivals, names)
    before = engine.stats()
    found = replay(engine, arrivals, requests, in_real_time=in_real_time)
    after = engine.stats()
    for counter in ("bank_loads", "host_reads", "bank_evictions"):
        found[counter] = after[counter] - before[counter]
    for held in ("bank_bytes", "host_bytes"):
        found[held.replace("bytes", "mib")] = after[held] / 2**20
    memory = anonymous_mib()
    return found if memory is None else {**found, "anonymous_mib": memory}


def _loaded_mib(stage: Stage, names: Sequence[str]) -> float | None:
    stage.open_ramole(stage.many(len(names)))
    found = anonymous_mib()
    stage.close()
    return found


def _complete(record: Record, adapters: Sequence[int], repetitions: int) -> bool:
    return all(
        record.count("slora", f"closed/n={n}") >= repetitions
        and record.count("slora", f"real_time/n={n}") >= 1
        for n in adapters
    )
