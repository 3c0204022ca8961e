"""Run the model for a batch: tokens of many requests, side by side, in one forward."""

import inspect
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from ramole_core.engine.attention import ServedAttention
from ramole_core.engine.capture import CapturedStep, Replay, copied, recording, same
from ramole_core.engine.flat_cache import FlatCache, Span
from ramole_core.engine.graph_step import Graphs, GraphStep
from ramole_core.engine.kv import KvCache, KvSequence
from ramole_core.kernels.threads import kernels_alone
from ramole_core.kernels.ways import VECTORS
from ramole_core.kernels.weight import way_here
from ramole_core.layers import Bank, BatchMix, Forward, RowMix, Serving, is_exact

MAX_KEPT_ROWS = 64
"""Rows of all recorded steps together; a row takes about 1 MiB (LOG)."""


@dataclass(frozen=True)
class Piece:
    """New tokens of one request, mixed one way."""

    sequence: KvSequence
    ids: Sequence[int]
    mix: RowMix
    traced: bool = False
    keep: int = 1
    """Number of its last tokens whose logits are returned."""
    ahead: int = 0
    """Tokens between those of the sequence and these, in pieces of the same forward."""


@dataclass(frozen=True)
class Output:
    """A forward's results for each piece."""

    logits: Float[Tensor, "b v"]
    """Logits after its last token."""
    kept: dict[int, Float[Tensor, "keep v"]]
    """Logits after its last `keep` tokens, where that is more than one."""
    gates: list[Tensor | None]
    """[l, 2, layer, module, k] float16, weights and contributions; None: not traced, or no adapter
    is at work."""
    faults: dict[int, Exception]
    """What a method's own score raised; the piece's other numbers are invalid."""


class ModelRunner:
    """Run forwards of a batch; the caller holds the engine's lock, in inference mode."""

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        bank: Bank,
        serving: Serving,
        attention: ServedAttention,
        graphs: Graphs | None = None,
    ):
        """`graphs` keeps decode steps on a GPU."""
        self.model, self._bank, self._serving = model, bank, serving
        self._attention, self._graphs = attention, graphs
        self._batch: BatchMix | None = None
        self._decoded: object = None
        """The last decode step: its batch, or on a CPU what steps alike have in common."""
        self._graph: GraphStep | None = None
        self._replays: OrderedDict[object, Replay] = OrderedDict()
        """Recorded steps, by what steps alike have in common; the last MAX_KEPT_ROWS."""
        exact = is_exact(model)
        self.apart = kernels_alone if exact else nullcontext
        """For forwards: where all products are kernels', PyTorch keeps out of their way."""
        self.replays = exact
        """Whether steps that repeat are recorded and replayed: the same bits, less Python."""
        self.way = way_here() if model.dtype == torch.bfloat16 and exact else VECTORS
        """The kernels' instruction set for products, where kernels compute them."""
        self.count = self.replayed = 0
        self._picks = "logits_to_keep" in inspect.signature(model.forward).parameters
        """Whether the model computes the logits of named places alone."""

    @contextmanager
    def mixing(self, rows: Sequence[RowMix], l: int) -> Iterator[Forward]:
        """Mix outside forwards of `l` tokens a row inside the block, without a trace."""
        batch = BatchMix(self._bank, rows)
        self._serving.long.now = None  # it was of the last step's tokens
        with self.apart(), self._serving.mixing(batch, [l] * len(rows)) as forward:
            yield forward

    def forward(self, pieces: Sequence[Piece], kv: KvCache, *, again: bool = True) -> Output:
        """Run the pieces; their keys and values are in `kv` then, not yet committed. `again`:
        others alike may follow in this cache, for which a step is recorded."""
        device = self.model.device
        counts = [len(piece.ids) for piece in pieces]
        spans = [
            Span(piece.sequence, piece.sequence.length + piece.ahead, count)
            for piece, count in zip(pieces, counts, strict=True)
        ]
        cache = FlatCache(kv, spans, device=device)
        ids = [token for piece in pieces for token in piece.ids]
        traced = [n for n, piece in enumerate(pieces) if piece.traced and piece.mix.slots]
        mixes = [piece.mix for piece in pieces]
        self.count += 1
        self._serving.long.now = cache.long
        single = again and len(ids) == len(pieces)
        kind = self._kind(mixes, traced, spans) if single else None
        if (kept := self._kept(kind, mixes, traced, kv)) is not None:
            self.replayed += 1
            logits = kept.run(ids, cache)
            return self._output(logits, kept.step.forward, traced, len(pieces))
        batch = self._batch_of(mixes)
        known = kind is not None and (kind == self._decoded or kind in self._replays)
        self._decoded = self._decoded if kind is None else kind
        told = torch.tensor([ids], device=device)
        starts = [span.start for span in spans]
        kept = _kept_places(pieces, device)

        def run() -> Tensor:
            picked = {"logits_to_keep": kept} if self._picks else {}
            logits = self.model(
                input_ids=told,
                attention_mask=cache.mask,
                position_ids=cache.positions,
                cache=cache,
                use_cache=True,
                **picked,
            ).logits[0]
            cache.check_attended()
            return logits if self._picks or isinstance(kept, int) else logits[kept]

        self._attention.step = cache
        try:
            with (
                self.apart(),
                self._serving.mixing(batch, counts, starts=starts, trace=traced) as forward,
            ):

                def step() -> CapturedStep:
                    return CapturedStep(batch, tuple(traced), kv, forward, told, cache.positions)

                if known and self._graphs is not None:
                    logits = self._captured(self._graphs, step, cache, run)
                else:
                    logits = self._recorded(kind, step, run) if known else run()
        finally:
            self._attention.step = None
        parts = logits.split([piece.keep for piece in pieces])
        more = {n: part for n, part in enumerate(parts) if len(part) > 1}
        if more:
            logits = torch.stack([part[-1] for part in parts])
        return self._output(logits, forward, traced, len(pieces), kept=more)

    def _recorded(
        self, kind: object, step: Callable[[], CapturedStep], run: Callable[[], Tensor]
    ) -> Tensor:
        """Logits of a step, recorded for replay."""
        with recording() as made:
            logits = run()
        if made.fault:
            self.replays = False  # this model's steps hang on numbers that Python reads
            return logits
        self._replays[kind] = Replay(step(), logits, made)
        while len(self._replays) > 1 and self._kept_rows > MAX_KEPT_ROWS:
            self._replays.popitem(last=False)
        return copied(logits)

    @property
    def _kept_rows(self) -> int:
        return sum(kept.step.batch.b for kept in self._replays.values())

    def _captured(
        self,
        graphs: Graphs,
        step: Callable[[], CapturedStep],
        cache: FlatCache,
        run: Callable[[], Tensor],
    ) -> Tensor:
        """Logits of a step, captured as a graph where possible."""
        way = cache.make_room()
        captured = graphs.capture(step().forward, run)
        if captured is None:
            return run()
        self._graph = made = GraphStep(step(), *captured, run, way)
        return made.launch()

    def _output(
        self,
        logits: Tensor,
        forward: Forward,
        traced: list[int],
        b: int,
        *,
        kept: dict[int, Tensor] | None = None,
    ) -> Output:
        gates: list[Tensor | None] = [None] * b
        for n, found in zip(traced, forward.traces(), strict=True):
            gates[n] = found.clone()
        return Output(logits, kept or {}, gates, forward.late.faults)

    def _kind(
        self, mixes: list[RowMix], traced: Sequence[int], spans: Sequence[Span]
    ) -> object | None:
        """The cache key of a decode step: a kept step replaces all with the same key. None: a step
        of these rows is not kept."""
        batch = self._batch_of(mixes)
        if self._graphs is not None:
            takes = self._graphs.takes(batch) and not self._bank.has_experts
            return batch if takes else None
        if not self.replays or batch.late_by_rows:
            return None
        return *batch.sizes, tuple(traced), tuple(span.sequence.long for span in spans)

    def _kept(
        self, kind: object | None, mixes: Sequence[RowMix], traced: Sequence[int], kv: KvCache
    ) -> Replay | GraphStep | None:
        """Return the kept step that replaces this one; None: there is none."""
        if kind is None:
            return None
        if self._graphs is not None:
            graph = self._graph
            return graph if graph is not None and graph.step.fits(mixes, traced, kv) else None
        kept = self._replays.get(kind)
        if kept is None or not kept.step.lies_in(kv):
            return None
        self._replays.move_to_end(kind)
        kept.step.take(self._batch_of(list(mixes)))
        self._batch = kept.step.batch
        return kept

    def _batch_of(self, mixes: list[RowMix]) -> BatchMix:
        """The tables of these rows; those of the last forward where they are the same."""
        last = self._batch
        if last is not None and last.version == self._bank.version and same(last.rows, mixes):
            return last
        self._batch = BatchMix(self._bank, mixes)
        return self._batch

    def rest(self) -> None:
        """Drop what belongs to the batch that ended."""
        self._batch = self._graph = None
        self._decoded = None if self._graphs is not None else self._decoded

    def forget(self) -> None:
        self.rest()
        self._decoded = None
        self._replays.clear()


def _kept_places(pieces: Sequence[Piece], device: torch.device) -> Int[Tensor, "n"] | int:
    """The last `keep` tokens of each piece, as places in the forward; 0: it is all of them, which a
    model takes as they lie."""
    found, end = [], 0
    for piece in pieces:
        end += len(piece.ids)
        found += range(end - piece.keep, end)
    return 0 if len(found) == end else torch.tensor(found, device=device)
