"""Runs the model for a batch: tokens of many requests, side by side, in one forward."""

from collections.abc import Iterator, Sequence as Many
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from ramole_core.engine.attention import FlatCache, ServedAttention, Span
from ramole_core.engine.kv import KvCache, Sequence
from ramole_core.layers import Bank, BatchMix, Forward, RowMix, Serving


@dataclass(frozen=True)
class Piece:
    """Tokens of one request that stand behind those in its sequence, mixed one way."""

    sequence: Sequence
    ids: Many[int]
    mix: RowMix
    traced: bool = False


@dataclass(frozen=True)
class Output:
    """What a forward gives for each piece."""

    logits: Float[Tensor, "b v"]
    """After its last token."""
    gates: list[Tensor | None]
    """[l, 2, layer, module, k] float16, weights and contributions; None: not traced, or no adapter
    is at work."""
    faults: dict[int, Exception]
    """What a method's own score raised; the piece's other numbers mean nothing."""


class ModelRunner:
    """Whoever calls it holds the engine's lock, and is in inference mode."""

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        bank: Bank,
        serving: Serving,
        attention: ServedAttention,
    ):
        self._model, self._bank, self._serving = model, bank, serving
        self._attention = attention
        self._batch: BatchMix | None = None
        self.count = 0

    @contextmanager
    def mixing(self, rows: Many[RowMix], l: int) -> Iterator[Forward]:
        """Somebody else's forwards of `l` tokens a row are mixed so, without a trace."""
        with self._serving.mixing(BatchMix(self._bank, rows), [l] * len(rows)) as forward:
            yield forward

    def forward(self, pieces: Many[Piece], kv: KvCache) -> Output:
        """Feed the pieces; their keys and values are in `kv` then, and not yet committed."""
        device = self._model.device
        counts = [len(piece.ids) for piece in pieces]
        starts = [piece.sequence.length for piece in pieces]
        batch = self._batch_of([piece.mix for piece in pieces])
        spans = [
            Span(piece.sequence, start, count)
            for piece, start, count in zip(pieces, starts, counts, strict=True)
        ]
        cache = FlatCache(kv, spans, device=device)
        ids = torch.tensor([[token for piece in pieces for token in piece.ids]], device=device)
        traced = [n for n, piece in enumerate(pieces) if piece.traced and piece.mix.slots]
        self._attention.step = cache
        self.count += 1
        try:
            with self._serving.mixing(batch, counts, starts=starts, trace=traced) as forward:
                logits = self._model(
                    input_ids=ids,
                    attention_mask=torch.zeros(1, 1, 1, 1, device=device),  # not read
                    position_ids=cache.positions,
                    cache=cache,
                    use_cache=True,
                    logits_to_keep=torch.tensor(counts, device=device).cumsum(0) - 1,
                ).logits[0]
        finally:
            self._attention.step = None
        gates: list[Tensor | None] = [None] * len(pieces)
        for n, found in zip(traced, forward.traces(), strict=True):
            gates[n] = found.clone()
        return Output(logits, gates, forward.faults)

    def _batch_of(self, mixes: list[RowMix]) -> BatchMix:
        """The tables of these rows; those of the last forward where they are the same."""
        last = self._batch
        if last is not None and last.version == self._bank.version and same(last.rows, mixes):
            return last
        self._batch = BatchMix(self._bank, mixes)
        return self._batch

    def forget(self) -> None:
        """Drop what was built for the batch that ended."""
        self._batch = None


def same(rows: Many[RowMix], mixes: Many[RowMix]) -> bool:
    """Whether these are the very same, in order."""
    return len(rows) == len(mixes) and all(a is b for a, b in zip(rows, mixes, strict=True))
