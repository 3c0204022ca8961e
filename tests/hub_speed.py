"""How long the Hub's list takes, and what it costs a prompt: `python -m tests.hub_speed 1000`.

The real encoder and base, the sample pool, and a Hub on this machine whose adapters are all of the
base's query and value projections at rank 8 (1.1 MB each); nothing is fetched from elsewhere.
"""

import os
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np

from ramole_core import Ramole, Settings
from ramole_core.base.shapes import read_shapes
from ramole_core.hub.register import Register
from tests.adapter_files import pack
from tests.hub_server import BASE, TASKS, HubServer, Repository, adapter, serving

PROMPTS = ("Fix the capital letters: i live in paris", "What is 2 plus 3?", "Tell me about knots")


def weights(ramole: Ramole) -> bytes:
    """Rank 8 on every query and value projection."""
    draw, arrays = np.random.default_rng(0), {}
    for path, (i, o) in read_shapes(ramole.base.folder).items():
        if path.endswith(("q_proj", "v_proj")):
            name = f"base_model.model.{path}"
            arrays[f"{name}.lora_A.weight"] = (0.01 * draw.normal(size=(8, i))).astype("f2")
            arrays[f"{name}.lora_B.weight"] = (0.01 * draw.normal(size=(o, 8))).astype("f2")
    return pack(arrays)


def milliseconds(*asks: Callable[[str], object], times: int = 60) -> list[str]:
    """Median and 90th percentile of each, in turn, over new prompts whose vectors are known."""
    spent: list[list[float]] = [[] for _ in asks]
    for n in range(times):
        text = f"{PROMPTS[n % len(PROMPTS)]} ({n} {time.perf_counter()})"
        for one, ask in zip(spent, asks, strict=True):
            began = time.perf_counter()
            ask(text)
            one.append(1000 * (time.perf_counter() - began))
    return [
        f"{statistics.median(one):.1f} ms (90th percentile {sorted(one)[int(0.9 * times)]:.1f})"
        for one in spent
    ]


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    settings = Settings(hub_adapters=True, hub_base=BASE, hub_listed=count)
    with Ramole(settings) as ramole, serving(HubServer()) as hub:
        os.environ["HF_ENDPOINT"] = hub.url
        made = weights(ramole)
        for n in range(count):
            task = TASKS[n % len(TASKS)]
            card = f"Writes {task} of kind {n}. It was trained on {n} texts about item {n}. " * 3
            shown = tuple(
                f"write {task} {j} about item {n}" for j in range(20 if n % 4 == 0 else 0)
            )
            files = adapter(n, card=card, examples=shown, weights=made)
            hub.repositories[f"ada/{task}-{n}"] = Repository(files, downloads=count - n)
        ramole.retriever.check()
        began, cpu = time.perf_counter(), time.process_time()
        rows = list(ramole.hub.search(lambda words, fraction: None).rows)
        spent, cpu = time.perf_counter() - began, time.process_time() - cpu
        print(f"search: {spent:.1f} s ({cpu:.1f} s of CPU), {len(rows)} listed, "
              f"{len(hub.asked)} requests")  # fmt: skip
        began = time.perf_counter()
        ramole.hub.search()
        print(f"search again, nothing new: {time.perf_counter() - began:.1f} s")

        embed, pool, listed = milliseconds(
            lambda text: ramole.retriever.vectors([text]),
            lambda text: ramole.retrieve(text),
            lambda text: ramole.hub.near(text, 7),
        )
        print(f"a prompt: its vector {embed}, the sample pool {pool}, the list {listed}")
        near = ramole.hub.near("write knots about item 6", 1)
        began = time.perf_counter()
        said = ramole.hub.bring_nearer(near, [], 1)
        print(f"first use: {time.perf_counter() - began:.2f} s. {said[0]}")
        file = settings.data_dir / "hub" / "listed.json"
        began = time.perf_counter()
        Register(settings.data_dir / "hub", base=BASE).rows()
        print(f"listed.json: {file.stat().st_size / 2**20:.1f} MiB, read in "
              f"{time.perf_counter() - began:.2f} s")  # fmt: skip


if __name__ == "__main__":
    main()
