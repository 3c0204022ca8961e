"""Tokens a second of this checkout: what two versions are compared by, run in turns.

    OMP_NUM_THREADS=2 python -m lab.benchmarks.decode_speed OUT.json

NF4, sample adapters named in turn, by the engine's own counters; the best of two (prompts: three)
passes after one that is not counted.
"""

import json
import sys
from pathlib import Path

from ramole_core import Ramole, Request, Settings

PROMPT = (
    "The ferry from the old harbour leaves at nine and takes forty minutes, so we should be there "
    "early enough to see the market before it"
)
CASES = (
    *(("base", 0, 1), ("base", 0, 8), ("base", 0, 32)),
    *(("ramole", 3, 1), ("ramole", 3, 8), ("ramole", 3, 32)),
    *(("ramole_plus", 3, 8), ("mixture", 3, 8), ("selection", 1, 8)),
)
"""Method, adapters of a row, rows."""
LONG = 14
"""Times the prompt: about 400 tokens."""


class Timer:
    """Decode and prefill rates of a loaded system."""

    def __init__(self, ramole: Ramole):
        self._ramole = ramole
        self._names = [card.name for card in ramole.pool.cards()][:18]

    def rates(
        self, method: str, k: int, rows: int, *, new: int, trace: bool = False, times: int = 1
    ) -> tuple[float, float]:
        """Tokens a second decoded, and read."""
        names, before = self._names, dict(self._ramole.engine.stats())
        requests = [
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
        forget = getattr(self._ramole.engine, "forget_prefixes", None)  # older versions keep none
        if forget is not None:
            forget()
        self._ramole.generate(requests)
        after = self._ramole.engine.stats()
        spent = {name: after[name] - before[name] for name in before}
        return (
            spent["decode_tokens"] / spent["decode_seconds"],
            spent["prefill_tokens"] / spent["prefill_seconds"],
        )


def main() -> None:
    """Write the rates of every case as JSON."""
    found: dict[str, float] = {}
    with Ramole(Settings(quantization="nf4")) as ramole:
        ramole.load()
        timer = Timer(ramole)
        for case in CASES:
            timer.rates(*case, new=4)
        for case in CASES:
            new = 24 if case[2] < 32 else 16
            label = f"{case[0]} k{case[1]} b{case[2]}"
            found[label] = max(timer.rates(*case, new=new)[0] for _ in range(2))
        found["ramole k3 b8, traced"] = max(
            timer.rates("ramole", 3, 8, new=16, trace=True)[0] for _ in range(2)
        )
        for method, k in (("base", 0), ("ramole", 3), ("ramole_plus", 3)):
            found[f"{method}, reading"] = max(
                timer.rates(method, k, 1, new=2, times=LONG)[1] for _ in range(3)
            )
    Path(sys.argv[1]).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
