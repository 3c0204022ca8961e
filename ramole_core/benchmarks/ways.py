"""`python -m ramole_core.benchmarks.ways`: where each of the two ways of mixing is the cheapest.

Forwards of the real base in bfloat16 with three gated adapters a row, each way forced in turn, for
growing numbers of tokens and for rows that share their adapters or do not. `layers/mixing.py`
chooses by these numbers.
"""

import statistics
import time

import torch
from rich.console import Console
from rich.table import Table

from ramole_core.base.fetch import fetch_base
from ramole_core.base.model import load_base
from ramole_core.base.shapes import read_shapes
from ramole_core.composition import Decision, Gate, Lora, Router, random_router
from ramole_core.layers import Bank, BatchMix, RowMix, find_layout, install_serving, pack_units
from ramole_core.layers.mixing import Way, cheapest
from ramole_core.layers.served_linear import Serving
from ramole_core.settings import load_settings

SHAPES = ((1, 1), (8, 1), (32, 1), (1, 64), (8, 16), (8, 32), (32, 8), (1, 512), (8, 128))
"""Rows, and tokens of each."""
WAYS: tuple[Way, ...] = ("rows", "all")
ADAPTERS, RANK, K, REPEATS = 24, 8, 3, 5


def main() -> None:
    """Print the milliseconds of a forward without mixing, and what each way adds to it."""
    s = load_settings(quantization="none")
    base = load_base(
        s.base_model, data_dir=s.data_dir, quantization="none", dtype=s.dtype, device=s.device
    )
    shapes = read_shapes(fetch_base(s.base_model, data_dir=s.data_dir))
    layout = find_layout(base.model, shapes)
    bank = Bank(layout, device=base.device, dtype=base.dtype, limit=2**30)
    router = random_router(shapes, rank=6)
    bank.add_router(router)
    _, serving = install_serving(base.model, layout)

    table = Table(title=f"milliseconds that mixing adds to a forward, median of {REPEATS}")
    for column in ("rows x tokens", "adapters", "pages met", "forward", *WAYS, "chosen"):
        table.add_column(column, justify="right")
    for b, l in SHAPES:
        for count in sorted({min(K * b, ADAPTERS), K}):
            batch = BatchMix(bank, _rows(bank, router, shapes, b, count))
            times = _measure(base.model, serving, batch, torch.randint(0, 1000, (b, l)))
            added = [f"{times[way] - times[None]:.1f}" for way in WAYS]
            met = str(batch.page_count * l)
            chosen = cheapest(batch, l)
            table.add_row(f"{b} x {l}", str(count), met, f"{times[None]:.1f}", *added, chosen)
            for row in batch.rows:
                for slot in row.slots:
                    bank.release(slot)
            bank.tidy()
    Console().print(table)


def _rows(
    bank: Bank, router: Router, shapes: dict[str, tuple[int, int]], b: int, count: int
) -> list[RowMix]:
    """b rows of K of the first `count` adapters each, all gated."""

    def make(seed: int):
        pick = torch.Generator().manual_seed(seed)
        loras = {
            path: Lora(
                A=torch.randn(RANK, i, generator=pick) * i**-0.5,
                B=torch.randn(o, RANK, generator=pick) * 0.01,
            )
            for path, (i, o) in shapes.items()
        }
        return lambda: pack_units(loras, bank.layout, dtype=bank.dtype)

    rows, modules = [], len(bank.layout.flat)
    for row in range(b):
        found = [bank.acquire(n, make(n)) for n in ((row + j) % count for j in range(K))]
        slots = tuple(slot for slot in found if slot is not None)
        rows.append(RowMix(slots, Decision(torch.zeros(modules, K), gate=Gate(router=router))))
    return rows


@torch.inference_mode()
def _measure(
    model: torch.nn.Module, serving: Serving, batch: BatchMix, ids: torch.Tensor
) -> dict[Way | None, float]:
    """Median milliseconds of a forward by way, in turns; None: without mixing."""
    bare = BatchMix(batch.bank, [])
    took: dict[Way | None, list[float]] = {way: [] for way in (None, *WAYS)}
    for _ in range(REPEATS + 1):
        for way, seconds in took.items():
            began = time.perf_counter()
            with serving.mixing(batch if way else bare, ids.shape[1], way=way):
                model(input_ids=ids.to(batch.bank.device), use_cache=False, logits_to_keep=1)
            seconds.append(time.perf_counter() - began)
    return {way: 1e3 * statistics.median(seconds[1:]) for way, seconds in took.items()}


if __name__ == "__main__":
    main()
