"""Scores under teacher forcing: each token of the right answer checked after the right prefix.

Where a task is scored by exact match, a row counts 100 when every token of the right answer, the
end token included, is the likeliest after those before it: exactly then greedy decoding gives it.
Other tasks count the share of such tokens. Reading prompt and answer takes the place of decoding,
so choices can be compared on many dev rows.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from jaxtyping import Float
from torch import Tensor

from ramole_core.base.model import BaseModel
from ramole_core.composition import Candidate
from ramole_core.engine.engine import Engine
from ramole_core.engine.pair_reading import Pair, PairReading
from ramole_core.errors import Busy
from ramole_core.methods import Value
from ramole_core.request import Request
from ramole_core.training.rows import Encoded, Row, encode_row

ROWS = 24
"""Rows that wait or run together."""


@dataclass(frozen=True)
class Forced:
    """One row: its score, 0 to 100, and the right answer's loss in nats a token."""

    score: float
    loss: float


def measure_forced(
    engine: Engine,
    base: BaseModel,
    rows: Sequence[Row],
    metrics: Sequence[str],
    chosen: Sequence[Sequence[Candidate]],
    *,
    method: str,
    options: Mapping[str, Value] | None = None,
) -> list[Forced]:
    """Every row under `method` with the adapters chosen for it; `metrics` are the rows' own.

    Raises RamoleError where the device holds too few adapters for one forward.
    """
    encoded = [encode_row(base.tokenizer, row) for row in rows]
    asked = [
        (Request(row.inputs, method=method, options=options), adapters)
        for row, adapters in zip(rows, chosen, strict=True)
    ]
    found = []
    for metric, tokens in zip(metrics, force_tokens(engine, encoded, asked), strict=True):
        losses, right = zip(*tokens, strict=True)
        share = float(all(right)) if metric == "em" else fmean(right)
        found.append(Forced(100 * share, fmean(losses)))
    return found


@dataclass
class ForcedReading(PairReading):
    """A pair whose answer tokens are compared with the likeliest ones, too."""

    right: list[bool] = field(default_factory=list)
    """Whether each was the likeliest."""

    def add(self, logits: Float[Tensor, "n v"], end: int) -> None:
        targets = self.pair.targets[len(self.losses) :]
        super().add(logits, end)
        likeliest = logits.argmax(-1).tolist()
        self.right += [a == b for a, b in zip(likeliest, targets, strict=False)]


def force_tokens(
    engine: Engine,
    encoded: Sequence[Encoded],
    asked: Sequence[tuple[Request, Sequence[Candidate]]],
) -> list[list[tuple[float, bool]]]:
    """Every answer token under the method and adapters of its row, after the right ones before it:
    its loss in nats, and whether it was the likeliest; the end token is one of them.

    Raises RamoleError where a row cannot be read.
    """
    readings = [ForcedReading([Pair(one.prompt + one.answer[:-1], one.answer)]) for one in encoded]
    found: list[object] = []
    waiting = deque(zip(asked, readings, strict=True))
    while len(found) < len(readings):
        while waiting and len(readings) - len(waiting) - len(found) < ROWS:
            (request, candidates), reading = waiting[0]
            try:
                engine.submit_pairs(
                    request, candidates, reading, deliver=lambda _, item: found.append(item)
                )
            except Busy:  # the merges of those that run fill the memory
                if len(readings) - len(waiting) == len(found):
                    raise
                break
            waiting.popleft()
        engine.step()
        for item in found:
            if isinstance(item, Exception):
                raise item
    return [list(zip(one.losses, one.right, strict=True)) for one in readings]
