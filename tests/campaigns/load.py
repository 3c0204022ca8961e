"""Many clients at once, for as long as one likes: no answer differs from alone.

`python -m tests.campaigns.load --minutes 10 --seed 0` serves app.py with the real base and has 32
clients ask, stream, stop, upload, remove and send batches. What must be 0: refusals other than
"busy", answers other than alone, and what is left at the end.
"""

import argparse
import asyncio
import json
import os
import platform
import re
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

from ramole_core.base.shapes import read_shapes
from ramole_core.pool import write_manifest
from ramole_core.settings import Settings
from tests.campaigns.visitors import Question, Seen, Visitor
from tests.core.test_ramole import write_lora
from tests.support.pool_fakes import zipped
from tests.support.serving import Server, running, second_start

PROMPTS = (
    "Fix the capital letters in the following text: i live in paris",
    "Write an SQL query: how many rooms has The Blue Lamp on each floor? Tables: rooms(id, floor)",
    "What is 3 plus 4?",
    "Is this spam? Win a phone now!",
)
FAULT = re.compile(r"ERROR |\w+ \(its message|  \S+:\d+ ")
"""A line of the log that is part of a fault: its name, its places."""
LOOK = 0.5
SETTLED = 400.0
"""Seconds in which everything that was left is gone."""


@dataclass(frozen=True)
class System:
    """What is served, and what is asked of it."""

    settings: dict[str, object]
    base: Path
    methods: tuple[str, ...]
    tokens: int


def tiny_system(root: Path, base: Path) -> System:
    """A random model with two adapters, in float32."""
    shapes = read_shapes(base)
    for seed, prompt in enumerate(PROMPTS[:3]):
        folder = write_lora(root / "adapters" / f"l{seed}", shapes, rank=2, seed=seed)
        (folder / "examples.jsonl").write_text(json.dumps({"text": prompt}) + "\n")
        write_manifest(folder, name=folder.name, shapes=shapes)
    said = {"base_model": base, "quantization": "none", "dtype": "float32"}
    said |= {"adapters_dir": root / "adapters", "data_dir": root / "data"}
    return System(said, base, ("mixture", "selection", "base"), 12)


def real_system(root: Path, kind: str) -> System:
    """The base and the sample pool that ship; `kind`: served (NF4), or fp32."""
    said: dict[str, object] = {"data_dir": second_start(root / "data")}
    if kind == "fp32":
        said |= {"quantization": "none", "dtype": "float32"}
    (base,) = {file.parent for file in (Settings().data_dir / "base").glob("*/config.json")}
    return System(said, base, ("ramole_plus", "ramole", "mixture", "similarity", "base"), 24)


def questions_of(system: System, uploads: int) -> list[Question]:
    """Each prompt under each method, and each upload by its name."""
    said = {"max_new_tokens": system.tokens}
    asked = [
        Question({"prompt": prompt, "method": method, "k": 1 + n % 3, **said})
        for n, (prompt, method) in enumerate((p, m) for p in PROMPTS for m in system.methods)
    ]
    for number in range(uploads):
        named = {"adapters": [f"upload{number}"], "method": "mixture", "k": 1, **said}
        asked.append(Question({"prompt": PROMPTS[number % len(PROMPTS)], **named}, number))
    return asked


def run(
    root: Path, system: System, *, clients: int, seconds: float, seed: int
) -> dict[str, object]:
    """Serve, ask all alone, then everybody at once for so long; what came of it."""
    shapes, made = read_shapes(system.base), []
    for number in range(3):
        folder = write_lora(root / f"upload{number}", shapes, rank=3 + number, seed=90 + number)
        made.append(zipped(folder, root / f"upload{number}.zip"))
    few = {"max_batch": 8, "max_queue": 24, "log_requests": "true"}
    with running([sys.executable, "app.py"], root, **system.settings, **few) as server:
        return asyncio.run(_campaign(server, system, made, clients, seconds, seed))


async def _campaign(
    server: Server,
    system: System,
    files: list[Path],
    clients: int,
    seconds: float,
    seed: int,
) -> dict[str, object]:
    seen, asked = Seen(), questions_of(system, len(files))
    first = Visitor(server.url, 0, seen=seen, files=files, seed=seed)
    async with first.http:
        for question in asked:
            await first.alone(question)
    seen.counts.clear()
    loop = asyncio.get_running_loop()
    began = loop.time()
    until = began + seconds
    visitors = [
        Visitor(server.url, 1 + n, seen=seen, files=files, seed=seed) for n in range(clients)
    ]
    memory = asyncio.create_task(_memory(server, until))
    await asyncio.gather(*(one.stay(asked, until) for one in visitors))
    took = loop.time() - began
    left = await _left(server)
    log = server.log.read_text()
    return {
        "must_be_0": {
            "answers_other_than_alone": len(seen.different),
            "refusals_other_than_busy": len(seen.refused),
            "left_at_the_end": sum(left.values()),
            "tracebacks_in_the_log": log.count("Traceback"),
            "prompts_in_the_log": sum(prompt in log for prompt in PROMPTS),
        },
        "failures": [*seen.different, *seen.refused][:20],
        "faults_in_the_log": [line for line in log.splitlines() if FAULT.match(line)][:60],
        "left": left,
        "clients": clients,
        "seconds": round(took),
        "happened": dict(sorted(seen.counts.items())),
        "memory_mib": await memory,
        "shown": sorted(_names(await _metrics(server))),
        "cut_connections": _numbers(await _metrics(server), "ramole_connections_cut_total"),
        "refusals": _numbers(await _metrics(server), "ramole_refusals_total"),
    }


async def _memory(server: Server, until: float) -> dict[str, float]:
    """The server's resident memory: medians of quarters of the time, and the most."""
    process, found = psutil.Process(server.process.pid), []
    clock = asyncio.get_running_loop().time
    while clock() < until:
        found.append(process.memory_info().rss / 2**20)
        await asyncio.sleep(LOOK)
    quarter = max(1, len(found) // 4)
    parts = [found[n * quarter : (n + 1) * quarter] for n in range(4)]
    medians = {f"quarter_{n}": round(statistics.median(p)) for n, p in enumerate(parts, 1) if p}
    return {"first": round(found[0]), **medians, "most": round(max(found))}


async def _metrics(server: Server) -> str:
    async with httpx.AsyncClient(timeout=60) as client:
        return (await client.get(f"{server.url}/metrics")).text


def _numbers(text: str, name: str) -> dict[str, float]:
    """The samples of that name, by their label."""
    return {
        next(iter(sample.labels.values()), ""): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name
    }


def _names(text: str) -> set[str]:
    return {one.name for family in text_string_to_metric_families(text) for one in family.samples}


async def _left(server: Server) -> dict[str, int]:
    """What is still held once nobody asks any more: it must all be gone soon."""
    names = {
        "rows": "ramole_requests_running",
        "waiting": "ramole_requests_waiting",
        "kv_bytes": "ramole_kv_bytes",
    }
    end = time.monotonic() + SETTLED
    while True:
        text = await _metrics(server)
        left = {name: int(sum(_numbers(text, full).values())) for name, full in names.items()}
        left["uploads"] = int(_numbers(text, "ramole_adapters")["upload"])
        if not any(left.values()) or time.monotonic() > end:
            return left
        await asyncio.sleep(LOOK)


def main() -> int:
    words = argparse.ArgumentParser(prog="python -m tests.campaigns.load", description=__doc__)
    words.add_argument("--minutes", type=float, default=10)
    words.add_argument("--clients", type=int, default=32)
    words.add_argument("--seed", type=int, default=0)
    words.add_argument("--kind", choices=["served", "fp32"], default="served")
    words.add_argument("--out", type=Path, help="the JSON file that takes the figures, by kind")
    asked = words.parse_args()
    with tempfile.TemporaryDirectory(prefix="load-") as folder:
        found = run(
            Path(folder),
            real_system(Path(folder), asked.kind),
            clients=asked.clients,
            seconds=60 * asked.minutes,
            seed=asked.seed,
        )
    typed = f"--minutes {asked.minutes:g} --clients {asked.clients} --seed {asked.seed}"
    del found["shown"]
    found |= {
        "command": f"python -m tests.campaigns.load {typed} --kind {asked.kind}",
        "machine": f"{len(os.sched_getaffinity(0))} cores, {platform.machine()}",
        "date": datetime.now(UTC).date().isoformat(),
    }
    print(json.dumps(found, indent=1))
    if asked.out:
        there = json.loads(asked.out.read_text()) if asked.out.exists() else {}
        there[asked.kind] = found
        asked.out.write_text(json.dumps(there, indent=1) + "\n")
    must = found["must_be_0"]
    return int(isinstance(must, dict) and any(must.values()))


if __name__ == "__main__":
    sys.exit(main())
