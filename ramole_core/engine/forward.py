"""The forwards of a running batch: a chunk of prompts, or one token of every row."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedModel

from ramole_core.engine.attention import DecodeStep, ServedAttention
from ramole_core.engine.kv import KvCache
from ramole_core.engine.ticket import Ticket
from ramole_core.layers import Bank, Line, Lines, Serving


class Forwards:
    """Runs the model; whoever calls it holds the engine's lock, and is in inference mode."""

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
        self._lines: Lines | None = None
        self._rows: list[Ticket] = []
        self.count = 0

    @contextmanager
    def mixing(self, lines: Lines, l: int) -> Iterator[None]:
        """Somebody else's forwards of `l` tokens, without a trace."""
        with self._serving.mixing(lines, l):
            yield

    def prefill(
        self, tickets: Sequence[Ticket], counts: Sequence[int]
    ) -> tuple[Float[Tensor, "b v"], list[Tensor | None], Cache]:
        """Feed the next `counts` prompt tokens of each ticket: the logits after the last of them,
        the gates of each (None: not traced), and the cache that now holds them.

        Several tickets must all be at the start of their prompts; one alone may go on.
        """
        past = tickets[0].past or DynamicCache()
        start = tickets[0].read
        ids = torch.zeros(len(tickets), max(counts), dtype=torch.long)
        for row, (ticket, count) in enumerate(zip(tickets, counts, strict=True)):
            ids[row, :count] = torch.tensor(ticket.prompt_ids[start : start + count])
        lines = Lines(self._bank, [_line(ticket) for ticket in tickets])
        logits, gates = self.read(ids, lines, past=past, start=start, ends=counts, want=tickets)
        return logits, gates, past

    def read(
        self,
        ids: Tensor,
        lines: Lines,
        *,
        past: Cache,
        start: int,
        ends: Sequence[int],
        want: Sequence[Ticket] = (),
    ) -> tuple[Float[Tensor, "b v"], list[Tensor | None]]:
        """One forward of right-padded tokens: logits at each row's end, gates of traced rows."""
        device = self._model.device
        last, back = torch.tensor([end - 1 for end in ends]).unique(return_inverse=True)
        trace = any(ticket.request.trace for ticket in want)
        positions = torch.arange(start, start + ids.shape[1], device=device)[None]
        self.count += 1
        with self._serving.mixing(lines, ids.shape[1], trace=trace) as forward:
            logits = self._model(
                input_ids=ids.to(device),
                position_ids=positions.expand(len(ids), -1),
                cache=past,
                use_cache=True,
                logits_to_keep=last.to(device),
            ).logits
        gates: list[Tensor | None] = [None] * len(ids)
        if trace:
            rows = [n for n, ticket in enumerate(want) if ticket.request.trace]
            found = forward.weights(rows)
            for n, row in enumerate(rows):
                gates[row] = found[n, : ends[row], ..., : lines.lines[row].k].clone()
        return logits[torch.arange(len(ids)), back], gates

    def decode(self) -> tuple[list[Ticket], Float[Tensor, "b v"], list[Tensor | None]]:
        """Feed the last token of every row that decodes: rows, logits, and gates as `prefill`."""
        rows: list[Ticket] = self._kv.rows()  # pyright: ignore[reportAssignmentType]
        if self._lines is None or rows != self._rows or self._lines.version != self._bank.version:
            self._rows, self._lines = rows, Lines(self._bank, [_line(ticket) for ticket in rows])
        lines, device = self._lines, self._model.device
        trace = any(ticket.request.trace for ticket in rows)
        ids = torch.tensor([[ticket.tokens[-1]] for ticket in rows], device=device)
        step = DecodeStep(self._kv.in_use())
        self._attention.step = step
        self.count += 1
        try:
            with self._serving.mixing(lines, 1, trace=trace) as forward:
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
        gates: list[Tensor | None] = [None] * len(rows)
        if trace:
            traced = [n for n, ticket in enumerate(rows) if ticket.request.trace]
            found = forward.weights(traced)
            for n, row in enumerate(traced):
                gates[row] = found[n, ..., : lines.lines[row].k]
        return rows, logits, gates

    def forget(self) -> None:
        """Drop what was built for the batch that ended."""
        self._lines, self._rows = None, []


def _line(ticket: Ticket) -> Line:
    assert ticket.line is not None
    return ticket.line
