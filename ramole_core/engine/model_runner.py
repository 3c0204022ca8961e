"""Runs the model for a batch: tokens of many requests, side by side, in one forward."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from ramole_core.engine.attention import ServedAttention
from ramole_core.engine.capture import recording
from ramole_core.engine.captured_step import CapturedStep
from ramole_core.engine.flat_cache import FlatCache, Span
from ramole_core.engine.graph_step import Graphs, GraphStep
from ramole_core.engine.kv import KvCache, KvSequence
from ramole_core.engine.replay import Replay, copied
from ramole_core.kernels.threads import kernels_alone
from ramole_core.layers import Bank, BatchMix, Forward, RowMix, Serving, is_exact


@dataclass(frozen=True)
class Piece:
    """New tokens of one request, mixed one way."""

    sequence: KvSequence
    ids: Sequence[int]
    mix: RowMix
    traced: bool = False
    keep: int = 1
    """After how many of its last tokens logits are wanted."""
    ahead: int = 0
    """Tokens between those of the sequence and these, in pieces of the same forward."""


@dataclass(frozen=True)
class Output:
    """A forward's results for each piece."""

    logits: Float[Tensor, "b v"]
    """After its last token."""
    kept: dict[int, Float[Tensor, "keep v"]]
    """After its last `keep` tokens, of a piece that keeps more than one."""
    gates: list[Tensor | None]
    """[l, 2, layer, module, k] float16, weights and contributions; None: not traced, or no adapter
    is at work."""
    faults: dict[int, Exception]
    """What a method's own score raised; the piece's other numbers mean nothing."""


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
        self._model, self._bank, self._serving = model, bank, serving
        self._attention, self._graphs = attention, graphs
        self._batch: BatchMix | None = None
        self._decoded: BatchMix | None = None
        self._replay: Replay | GraphStep | None = None
        exact = is_exact(model)
        self.apart = kernels_alone if exact else nullcontext
        """For forwards: where all products are kernels', PyTorch keeps out of their way."""
        self.replays = exact
        """Whether steps that repeat are written down and run again; same bits, less Python."""
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

    def forward(self, pieces: Sequence[Piece], kv: KvCache) -> Output:
        """Run the pieces; their keys and values are in `kv` then, not yet committed."""
        device = self._model.device
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
        if self._replay is not None and len(ids) == len(pieces):
            before = self._replay.step
            if self._keeps(before.batch) and before.fits(mixes, traced, kv):
                self.replayed += 1
                logits = self._replay.run(ids, cache)
                return self._output(logits, before.forward, traced, len(pieces))
        batch = self._batch_of(mixes)
        again = self._repeats(batch, counts)
        told = torch.tensor([ids], device=device)
        starts = [span.start for span in spans]
        kept = _kept_places(pieces, device)

        def run() -> Tensor:
            picked = {"logits_to_keep": kept} if self._picks else {}
            logits = self._model(
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
                    places = kv.memory.version
                    return CapturedStep(
                        batch, tuple(traced), kv, places, forward, told, cache.positions
                    )

                if again and self._graphs is not None:
                    logits = self._captured(self._graphs, step, cache, run)
                else:
                    logits = self._recorded(step, run) if again else run()
        finally:
            self._attention.step = None
        parts = logits.split([piece.keep for piece in pieces])
        more = {n: part for n, part in enumerate(parts) if len(part) > 1}
        if more:
            logits = torch.stack([part[-1] for part in parts])
        return self._output(logits, forward, traced, len(pieces), kept=more)

    def _recorded(self, step: Callable[[], CapturedStep], run: Callable[[], Tensor]) -> Tensor:
        """Logits of a step, recorded for replay."""
        with recording() as made:
            logits = run()
        if made.fault:
            self.replays = False  # this model's steps hang on numbers that Python reads
            return logits
        self._replay = Replay(step(), logits, made)
        return copied(logits)

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
        self._replay = made = GraphStep(step(), captured, way)
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
        return Output(logits, kept or {}, gates, forward.faults)

    def _keeps(self, batch: BatchMix) -> bool:
        """Whether steps of these rows are recorded or captured."""
        if self._graphs is not None:
            return self._graphs.takes(batch) and not self._bank.has_experts
        return self.replays and not batch.late

    def _repeats(self, batch: BatchMix, counts: list[int]) -> bool:
        """Whether this step repeats the last decode step of the same rows, and can be kept."""
        decodes = len(counts) == sum(counts) and self._keeps(batch)
        before, self._decoded = self._decoded, batch if decodes else self._decoded
        return decodes and before is batch

    def _batch_of(self, mixes: list[RowMix]) -> BatchMix:
        """The tables of these rows; those of the last forward where they are the same."""
        last = self._batch
        if last is not None and last.version == self._bank.version and same(last.rows, mixes):
            return last
        self._batch = BatchMix(self._bank, mixes)
        return self._batch

    def forget(self) -> None:
        """Drop what was built for the batch that ended."""
        self._batch = self._decoded = self._replay = None


def _kept_places(pieces: Sequence[Piece], device: torch.device) -> Int[Tensor, "n"] | int:
    """The last `keep` tokens of each piece, as places in the forward; 0: it is all of them, which a
    model takes as they lie."""
    found, end = [], 0
    for piece in pieces:
        end += len(piece.ids)
        found += range(end - piece.keep, end)
    return 0 if len(found) == end else torch.tensor(found, device=device)


def same(rows: Sequence[RowMix], mixes: Sequence[RowMix]) -> bool:
    """Whether these are the same objects, in order."""
    return len(rows) == len(mixes) and all(a is b for a, b in zip(rows, mixes, strict=True))
