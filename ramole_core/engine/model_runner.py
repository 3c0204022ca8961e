"""Runs the model for a batch: a chunk of prompts, or one token of every row."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedModel

from ramole_core.engine.attention import DecodeStep, ServedAttention
from ramole_core.engine.kv import KvCache
from ramole_core.engine.request_state import RequestState
from ramole_core.layers import Bank, BatchMix, Forward, RowMix, Serving


@dataclass(frozen=True)
class Output:
    """What a forward gives for the rows of its batch."""

    logits: Float[Tensor, "b v"]
    """After each row's last token."""
    gates: list[Tensor | None]
    """[l, layer, module, k] of each row; None: not traced."""
    faults: dict[int, Exception]
    """By row: what its method's own score raised; its other numbers mean nothing."""


class ModelRunner:
    """Whoever calls it holds the engine's lock, and is in inference mode."""

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        bank: Bank,
        serving: Serving,
        attention: ServedAttention,
        kv: KvCache,
    ):
        self._model, self._bank, self._serving = model, bank, serving
        self._attention, self._kv = attention, kv
        self._batch: BatchMix | None = None
        self._rows: list[RequestState] = []
        self.count = 0

    @contextmanager
    def mixing(self, rows: Sequence[RowMix], l: int) -> Iterator[Forward]:
        """Somebody else's forwards of `l` tokens are mixed so, without a trace."""
        with self._serving.mixing(BatchMix(self._bank, rows), l) as forward:
            yield forward

    def prefill(
        self, states: Sequence[RequestState], counts: Sequence[int]
    ) -> tuple[Output, Cache]:
        """Feed the next `counts` prompt tokens of each request; also the cache that now holds them.

        Several must all be at the start of their prompts; one alone may go on.
        """
        past = states[0].past or DynamicCache()
        start = states[0].read
        ids = torch.zeros(len(states), max(counts), dtype=torch.long)
        for row, (state, count) in enumerate(zip(states, counts, strict=True)):
            ids[row, :count] = torch.tensor(state.prompt_ids[start : start + count])
        traced = [n for n, state in enumerate(states) if state.request.trace]
        output = self.read(ids, _mixes(states), past=past, start=start, ends=counts, traced=traced)
        return output, past

    def read(
        self,
        ids: Tensor,
        mixes: Sequence[RowMix],
        *,
        past: Cache,
        start: int,
        ends: Sequence[int],
        traced: Sequence[int] = (),
    ) -> Output:
        """One forward of right-padded tokens: logits at each row's end, gates of `traced` rows."""
        batch, device = BatchMix(self._bank, mixes), self._model.device
        last, back = torch.tensor([end - 1 for end in ends]).unique(return_inverse=True)
        positions = torch.arange(start, start + ids.shape[1], device=device)[None]
        self.count += 1
        with self._serving.mixing(batch, ids.shape[1], trace=bool(traced)) as forward:
            logits = self._model(
                input_ids=ids.to(device),
                position_ids=positions.expand(len(ids), -1),
                cache=past,
                use_cache=True,
                logits_to_keep=last.to(device),
            ).logits
        gates = _gates(forward, list(traced), ends)
        return Output(logits[torch.arange(len(ids)), back], gates, forward.faults)

    def decode(self) -> tuple[list[RequestState], Output]:
        """Feed the last token of every row that decodes; the rows, in the output's order."""
        rows: list[RequestState] = self._kv.rows()  # pyright: ignore[reportAssignmentType]
        if self._batch is None or rows != self._rows or self._batch.version != self._bank.version:
            self._rows, self._batch = rows, BatchMix(self._bank, _mixes(rows))
        device = self._model.device
        traced = [n for n, state in enumerate(rows) if state.request.trace]
        ids = torch.tensor([[state.tokens[-1]] for state in rows], device=device)
        step = DecodeStep(self._kv.in_use())
        self._attention.step = step
        self.count += 1
        try:
            with self._serving.mixing(self._batch, 1, trace=bool(traced)) as forward:
                logits = self._model(
                    input_ids=ids,
                    attention_mask=torch.zeros(len(rows), 1, 1, 1, device=device),  # not read
                    position_ids=step.positions,
                    cache=step,
                    use_cache=True,
                    logits_to_keep=1,
                ).logits[:, -1]
        finally:
            self._attention.step = None
        step.advance()
        return rows, Output(logits, _gates(forward, traced, [1] * len(rows)), forward.faults)

    def forget(self) -> None:
        """Drop what was built for the batch that ended."""
        self._batch, self._rows = None, []


def _mixes(states: Sequence[RequestState]) -> list[RowMix]:
    mixes = [state.mix for state in states]
    assert all(mix is not None for mix in mixes)
    return mixes  # pyright: ignore[reportReturnType]


def _gates(forward: Forward, traced: list[int], ends: Sequence[int]) -> list[Tensor | None]:
    gates: list[Tensor | None] = [None] * forward.batch.b
    if traced:
        found = forward.weights(traced)
        for n, row in enumerate(traced):
            gates[row] = found[n, : ends[row], ..., : forward.batch.rows[row].k].clone()
    return gates
