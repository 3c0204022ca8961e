"""The S-LoRA workload on our engine: N adapters on disk, of mixed ranks, one adapter a request."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

from lab.benchmarks.machine import anonymous_mib
from lab.benchmarks.record import Cell, Measured, Record
from lab.benchmarks.stage import Stage
from lab.benchmarks.synthetic import bytes_of
from lab.benchmarks.workload import Workload, make_arrivals, make_ranks, replay
from ramole_core.cli.timed_engine import OurEngine, make_prompt
from ramole_core.request import Request

PART = "slora"


def serving_cells(stage: Stage, record: Record) -> Iterator[Sequence[Cell]]:
    """Requests a second as fast as possible, and latencies in real time, for each N.

    One server with the largest N registered serves them all, in turns: a request draws from the
    first N, uniformly, which is the hardest on caches; arrivals are Poisson's. Each repetition has
    a seed of its own, the same for every N. Memory is that of this process, files that are mapped
    not counted.
    """
    s, most = stage.sizes, max(stage.sizes.serve_adapters)
    wanted = {f"closed/n={n}": (n, s.serve_repetitions) for n in s.serve_adapters}
    wanted |= {f"real_time/n={n}": (n, 1) for n in s.serve_adapters}
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
    workload = Workload(
        adapters=most, requests=s.serve_requests, rate=s.serve_rate, alpha=1.0, cv=1.0,
        prompt=s.serve_prompt, answer=s.serve_answer,
    )  # fmt: skip
    _replay(engine, replace(workload, requests=4), names, in_real_time=False)
    cells = []
    for name, (n, times) in wanted.items():
        asked, facts = replace(workload, adapters=n), dict[str, object]()
        if name.startswith("real_time"):
            asked = replace(asked, requests=max(2, int(s.serve_rate * s.serve_seconds)))
            facts = {"rate": asked.rate}

        def measure(name: str = name, asked: Workload = asked) -> Measured:
            seeded = replace(asked, seed=record.count(PART, name))
            return _replay(engine, seeded, names, in_real_time=name.startswith("real_time"))

        facts |= {"adapters": n, "requests": asked.requests}
        cells.append(Cell(name, measure, facts=facts, repetitions=times))
    yield cells
    on_disk = bytes_of(stage.shapes, make_ranks(most), stage.dtype)
    record.note(PART, "anonymous_mib", memory | {"after_all_runs": anonymous_mib()})
    record.note(PART, "on_disk_mib", round(on_disk / 2**20, 1))
    record.note(PART, "engine", engine.stats())


def _replay(
    engine: OurEngine, workload: Workload, names: Sequence[str], *, in_real_time: bool
) -> Measured:
    """The workload once; prompts have exactly the drawn lengths."""
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
