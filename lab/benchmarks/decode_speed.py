"""Tokens a second of this checkout: what two versions are compared by, run in turns.

    python -m lab decode_speed --threads 2 --out one.json

NF4, sample adapters named in turn, by the engine's own counters; the best of two (prompts: three)
passes after one that is not counted.
"""

from collections.abc import Sequence
from pathlib import Path

from lab import harness
from ramole_core import Ramole, Request, Settings

PROMPT = (
    "The ferry from the old harbour leaves at nine and takes forty minutes, so we should be there "
    "early enough to see the market before it"
)
Case = tuple[str, int, int]
CASES: tuple[Case, ...] = (
    *(("base", 0, 1), ("base", 0, 8), ("base", 0, 32)),
    *(("ramole", 3, 1), ("ramole", 3, 8), ("ramole", 3, 32)),
    *(("ramole_plus", 3, 8), ("mixture", 3, 8), ("selection", 1, 8)),
)
"""Method, adapters of a row, rows."""
LONG = 14
"""Times the prompt: about 400 tokens."""


def measure_rates(ramole: Ramole, requests: Sequence[Request]) -> tuple[float, float]:
    """Tokens a second decoded, and read, of these requests in one batch; nothing of them is known
    before."""
    ramole.engine.forget_prefixes()
    before = dict(ramole.engine.stats())
    ramole.generate(list(requests))
    after = ramole.engine.stats()
    spent = {name: after[name] - before[name] for name in before}
    decoded = spent["decode_tokens"] / spent["decode_seconds"]
    return decoded, spent["prefill_tokens"] / spent["prefill_seconds"]


def make_requests(
    names: Sequence[str], case: Case, *, new: int, trace: bool = False, times: int = 1
) -> list[Request]:
    """One request a row, of the prompt `times` over; adapters are named in turn."""
    method, k, rows = case
    return [
        Request(
            f"{row} " + " ".join([PROMPT] * times),
            method=method,
            adapters=[names[(3 * row + j) % len(names)] for j in range(k)] or None,
            max_new_tokens=new,
            ignore_eos=True,
            raw=True,
            trace=trace,
        )
        for row in range(rows)
    ]


def main(threads: harness.Threads = 0, out: harness.Out = Path("decode_speed.json")) -> None:
    """Write the rates of every case."""
    harness.use_threads(threads)
    found: dict[str, float] = {}
    with Ramole(Settings(quantization="nf4")) as ramole:
        ramole.load()
        names = [card.name for card in ramole.pool.cards()][:18]

        def best(case: Case, *, new: int, passes: int = 2, part: int = 0, **how: int) -> float:
            requests = make_requests(names, case, new=new, **how)
            return max(measure_rates(ramole, requests)[part] for _ in range(passes))

        for case in CASES:
            best(case, new=4, passes=1)
        for case in CASES:
            found[f"{case[0]} k{case[1]} b{case[2]}"] = best(case, new=24 if case[2] < 32 else 16)
        found["ramole k3 b8, traced"] = best(("ramole", 3, 8), new=16, trace=True)
        for method, k in (("base", 0), ("ramole", 3), ("ramole_plus", 3)):
            reading = best((method, k, 1), new=2, passes=3, part=1, times=LONG)
            found[f"{method}, reading"] = reading
    harness.Results(out).write(rates=found)
