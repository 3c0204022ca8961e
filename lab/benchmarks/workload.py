"""The S-LoRA workload (arXiv 2311.03285, section 7.1), and its replay.

adapter of a request: int(Power(alpha) * N)      alpha = 1 is uniform, a small one skewed
time between requests: Gamma(1 / cv^2, cv^2 / rate)
prompt and answer lengths: uniform;  ranks: round robin over a list
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lab.benchmarks.record import Measured
from ramole_core.cli.timed_engine import OurEngine
from ramole_core.errors import Busy
from ramole_core.request import Generation, Request

RANKS, SMALL = (4, 8, 12, 16), (1, 2)
IN_TIME = 6.0
"""Seconds within which a first token counts as in time."""


@dataclass(frozen=True)
class Workload:
    """What arrives when."""

    adapters: int
    """N."""
    requests: int
    rate: float
    """Requests a second, in the mean."""
    alpha: float
    cv: float
    prompt: tuple[int, int]
    """Fewest and most tokens."""
    answer: tuple[int, int]
    seed: int = 0


@dataclass(frozen=True)
class Arrival:
    """One request of a workload."""

    at: float
    """Seconds after the start."""
    adapter: int
    prompt_tokens: int
    new_tokens: int


def make_ranks(adapters: int, ranks: Sequence[int] = RANKS) -> list[int]:
    """Round robin over the ranks."""
    return [ranks[number % len(ranks)] for number in range(adapters)]


def make_arrivals(w: Workload) -> list[Arrival]:
    """Deterministic; times and lengths are the same whatever N is."""
    streams = [np.random.default_rng([w.seed, n]) for n in range(4)]
    at = np.cumsum(streams[0].gamma(1 / w.cv**2, w.cv**2 / w.rate, w.requests))
    adapter = (streams[1].power(w.alpha, w.requests) * w.adapters).astype(int)
    prompt = streams[2].integers(w.prompt[0], w.prompt[1], w.requests, endpoint=True)
    answer = streams[3].integers(w.answer[0], w.answer[1], w.requests, endpoint=True)
    rows = zip(at.tolist(), adapter.tolist(), prompt.tolist(), answer.tolist(), strict=True)
    return [Arrival(*row) for row in rows]


def replay(
    engine: OurEngine,
    arrivals: Sequence[Arrival],
    requests: Sequence[Request],
    *,
    in_real_time: bool,
) -> Measured:
    """Send each request when it arrives, or all at the start, and wait for every answer.

    What the engine is too busy to queue waits with its sender; latency counts from the arrival.
    """
    due = [arrival.at if in_real_time else 0.0 for arrival in arrivals]
    numbers: dict[int, int] = {}
    first: dict[int, float] = {}
    ended: dict[int, float] = {}
    tokens = sent = 0
    began = time.perf_counter()
    while len(ended) < len(requests):
        while sent < len(requests) and due[sent] <= time.perf_counter() - began:
            try:
                ticket = engine.submit(requests[sent])
            except Busy:
                break
            numbers[ticket.number] = sent
            sent += 1
        if engine.idle:
            time.sleep(max(0.0, due[sent] - (time.perf_counter() - began)))
            continue
        for ticket, item in engine.step():
            number = numbers[ticket.number]
            clock = time.perf_counter() - began
            if isinstance(item, Generation):
                ended[number] = clock
                tokens += item.new_tokens
            else:
                first.setdefault(number, clock)
    waits = np.array([first[n] - due[n] for n in range(len(requests))])
    latency = np.array([ended[n] - due[n] for n in range(len(requests))])
    total = max(ended.values()) - (due[0] if in_real_time else 0.0)
    return {
        "requests_per_second": len(requests) / total,
        "tokens_per_second": tokens / total,
        "first_token_seconds": float(waits.mean()),
        "first_token_p95_seconds": float(np.quantile(waits, 0.95)),
        "first_token_in_time_share": float((waits <= IN_TIME).mean()),
        "latency_seconds": float(latency.mean()),
        "distinct_adapters": float(len({arrival.adapter for arrival in arrivals})),
    }
