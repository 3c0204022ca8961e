"""Tokens a second of this checkout: what two versions are compared by, run in turns.

    python -m lab decode_speed --threads 2 --out one.json

NF4, sample adapters named in turn, by the engine's own counters; the best of two (prompts: three)
passes after one that is not counted.
"""

from collections.abc import Sequence
from pathlib import Path

from lab import harness
from ramole_core import Ramole, Request
from ramole_core.cli.timed_engine import BASE, MIXTURE, RAMOLE, SELECTION, MixSpec, make_requests
from ramole_core.settings import load_settings

PROMPT = (
    "The ferry from the old harbour leaves at nine and takes forty minutes, so we should be there "
    "early enough to see the market before it"
)
PLUS = MixSpec("ramole_plus", 3)
CASES = (
    *((mix, rows) for mix in (BASE, RAMOLE) for rows in (1, 8, 32)),
    *((mix, 8) for mix in (PLUS, MIXTURE, SELECTION)),
)
"""How a row is mixed, and rows."""
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


def main(threads: harness.Threads = 0, out: harness.Out = Path("decode_speed.json")) -> None:
    """Write the rates of every case."""
    found: dict[str, float] = {}
    with Ramole(load_settings(quantization="nf4", draft_rows=0)) as ramole:
        ramole.load()
        names = [card.name for card in ramole.pool.cards()][:18]

        def best(
            mix: MixSpec, rows: int, *, new: int, passes: int = 2, part: int = 0, times: int = 1
        ) -> float:
            prompts = [f"{row} " + " ".join([PROMPT] * times) for row in range(rows)]
            requests = make_requests(prompts, mix, names=names, new_tokens=new)
            return max(measure_rates(ramole, requests)[part] for _ in range(passes))

        for mix, rows in CASES:
            best(mix, rows, new=4, passes=1)
        for mix, rows in CASES:
            label = f"{mix.method} k{mix.k} b{rows}"
            found[label] = best(mix, rows, new=24 if rows < 32 else 16)
        found["ramole k3 b8, traced"] = best(MixSpec("ramole", 3, trace=True), 8, new=16)
        for mix in (BASE, RAMOLE, PLUS):
            reading = best(mix, 1, new=2, passes=3, part=1, times=LONG)
            found[f"{mix.method}, reading"] = reading
    harness.Results(out).write(rates=found)
