"""Prefill and decode apart: what a run's clock marks say."""

import time
from collections.abc import Sequence

import torch

from ramole_core.benchmarks.record import Measured


def now(device: torch.device) -> float:
    """Seconds; waits for what a GPU has still to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def rates(
    *, prompt_tokens: int, prefill_seconds: float, new_tokens: int, decode_seconds: float
) -> Measured:
    """Tokens per second of both phases; `new_tokens` are those of the decode phase alone, and a
    run that ends at the first token has none."""
    found = {
        "prefill_tokens_per_second": prompt_tokens / prefill_seconds,
        "prefill_seconds": prefill_seconds,
    }
    if new_tokens:
        found["decode_tokens_per_second"] = new_tokens / decode_seconds
    return found


def full_window(marks: Sequence[Sequence[float]]) -> tuple[float, float, int]:
    """From the moment when every row has its first token to that when the first row ends: start,
    end, and the tokens that came in between. `marks`: the times of each row's tokens."""
    start = max(row[0] for row in marks)
    end = min(row[-1] for row in marks)
    return start, end, sum(start < mark <= end for row in marks for mark in row)
