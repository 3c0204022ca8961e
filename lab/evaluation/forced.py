"""Scores under teacher forcing: each token of the right answer checked after the right prefix.

Where a task is scored by exact match, a row counts 100 when every token of the right answer, the
end token included, is the likeliest after those before it: exactly then greedy decoding gives it.
Other tasks count the share of such tokens. One forward of prompt and answer takes the place of a
decoding, so choices can be compared on many dev rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import torch
import torch.nn.functional as F
from torch import nn

from ramole_core.base.model import BaseModel
from ramole_core.composition import Candidate
from ramole_core.engine.engine import Engine
from ramole_core.methods import Value
from ramole_core.request import Request
from ramole_core.training.rows import Encoded, Row, collate, encode_row

ROWS = 24
"""Rows of about equal length in one forward."""


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
    for metric, tokens in zip(metrics, force_tokens(engine, base, encoded, asked), strict=True):
        losses, right = zip(*tokens, strict=True)
        share = float(all(right)) if metric == "em" else fmean(right)
        found.append(Forced(100 * share, fmean(losses)))
    return found


@torch.inference_mode()
def force_tokens(
    engine: Engine,
    base: BaseModel,
    encoded: Sequence[Encoded],
    asked: Sequence[tuple[Request, Sequence[Candidate]]],
) -> list[list[tuple[float, bool]]]:
    """Every answer token under the method and adapters of its row, after the right ones before it:
    its loss in nats, and whether it was the likeliest; the end token is one of them.

    Raises RamoleError where the device holds too few adapters for one forward.
    """
    order = sorted(range(len(encoded)), key=lambda n: len(encoded[n]))
    found: list[list[tuple[float, bool]]] = [[]] * len(encoded)
    head = base.model.get_output_embeddings()
    assert isinstance(head, nn.Module)
    for start in range(0, len(order), ROWS):
        part = order[start : start + ROWS]
        batch = collate([encoded[n] for n in part])
        with engine.mixing([asked[n] for n in part], batch.ids.shape[1]):
            hidden = base.model.base_model(
                input_ids=batch.ids.to(base.device), use_cache=False
            ).last_hidden_state
        logits = head(hidden[batch.rows, batch.places]).float().cpu()
        losses = F.cross_entropy(logits, batch.targets, reduction="none")
        right = logits.argmax(-1) == batch.targets
        for place, n in enumerate(part):
            mine = batch.rows == place
            found[n] = list(zip(losses[mine].tolist(), right[mine].tolist(), strict=True))
    return found
