"""The S-LoRA workload on our engine: N adapters on disk, of mixed ranks, one adapter a request.

warm       all at once; the packed files are in the system's memory, none is in the engine
cold       all at once; every adapter is read from the disk
real_time  as they arrive, as in warm, at a share of the requests a second of the fewest adapters
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

from lab.benchmarks.machine import anonymous_mib
from lab.benchmarks.ratios import REAL_TIME
from lab.benchmarks.record import Cell, Measured, Record
from lab.benchmarks.sizes import Sizes
from lab.benchmarks.stage import Stage
from lab.benchmarks.synthetic import bytes_of
from lab.benchmarks.workload import Workload, make_arrivals, make_ranks, replay
from ramole_core.cli.timed_engine import OurEngine, make_prompt
from ramole_core.request import Request

PART = "slora"
FILES = "warm", "cold"
"""Where the packed files of the adapters are, at the start of a run."""


def serving_cells(stage: Stage, record: Record) -> Iterator[Sequence[Cell]]:
    """Requests a second as fast as possible, and latencies in real time, for each N.

    One server with the largest N registered serves them all, in turns: a request draws from the
    first N, uniformly, which is the hardest on caches; arrivals are Poisson's. Each repetition has
    a seed of its own, the same for every N. Memory is that of this process, files that are mapped
    not counted.
    """
    s, most = stage.sizes, max(stage.sizes.serve_adapters)
    wanted = {
        f"{kind}/n={n}": (n, 1 if kind == REAL_TIME else s.serve_repetitions)
        for kind in (*FILES, REAL_TIME)
        for n in s.serve_adapters
    }
    if all(record.count(PART, name) >= times for name, (_, times) in wanted.items()):
        return
    few = stage.make_many(min(s.serve_adapters))
    memory = {"few_registered": _loaded_mib(stage, few)}
    names = stage.make_many(most)
    began = time.perf_counter()
    engine = OurEngine(stage.open_ramole(stage.many(most)))
    record.note(PART, "open_seconds", round(time.perf_counter() - began, 1))
    memory["many_registered"] = anonymous_mib()
    began = time.perf_counter()
    engine.pack(names, tell=lambda done: stage.tell(f"packing {most} adapters", done))
    record.note(PART, "pack_seconds", round(time.perf_counter() - began, 1))
    workload = workload_of(s, adapters=most)
    run_workload(engine, replace(workload, requests=4), names, kind="warm")

    def cell(kind: str, n: int, asked: Workload, **facts: object) -> Cell:
        name = f"{kind}/n={n}"

        def measure() -> Measured:
            seeded = replace(asked, adapters=n, seed=record.count(PART, name))
            return run_workload(engine, seeded, names, kind=kind)

        facts |= {"adapters": n, "requests": asked.requests}
        return Cell(name, measure, facts=facts, repetitions=wanted[name][1])

    yield [cell(kind, n, workload) for kind in FILES for n in s.serve_adapters]
    fewest = record.parts[PART]["cells"][f"warm/n={min(s.serve_adapters)}"]["summary"]
    rate = s.serve_share * fewest["requests_per_second"]["median"]
    arriving = replace(workload, rate=rate, requests=max(2, int(rate * s.serve_seconds)))
    yield [cell(REAL_TIME, n, arriving, rate=rate) for n in s.serve_adapters]
    on_disk = bytes_of(stage.shapes, make_ranks(most), stage.dtype)
    record.note(PART, "anonymous_mib", memory | {"after_all_runs": anonymous_mib()})
    record.note(PART, "on_disk_mib", round(on_disk / 2**20, 1))
    record.note(PART, "engine", engine.stats())


def workload_of(sizes: Sizes, *, adapters: int) -> Workload:
    """The workload of these sizes, adapters asked for evenly."""
    return Workload(
        adapters=adapters, requests=sizes.serve_requests, rate=1.0, alpha=1.0, cv=1.0,
        prompt=sizes.serve_prompt, answer=sizes.serve_answer,
    )  # fmt: skip


def run_workload(
    engine: OurEngine, workload: Workload, names: Sequence[str], *, kind: str
) -> Measured:
    """Run the workload once, on an engine that holds no adapter and no prefix; prompts have exactly
    the drawn lengths."""
    arrivals, tokenizer = make_arrivals(workload), engine.ramole.base.tokenizer
    requests = [
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
    if kind != "cold":
        engine.read(sorted({names[arrival.adapter] for arrival in arrivals}))
    engine.forget(files=kind == "cold")
    before = engine.stats()
    found = replay(engine, arrivals, requests, in_real_time=kind == REAL_TIME)
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
