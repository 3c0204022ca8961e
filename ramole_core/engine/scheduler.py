"""Continuous batching: each step admits requests, reads prompts and decodes a token of every row.

A step admits what fits, feeds one chunk of prompts, and decodes one token of every running row, in
one forward whatever their methods, adapters, k and decoding settings (iteration-level scheduling,
Orca; S-LoRA, arXiv 2311.03285). It has no threads of its own: the caller of `step` runs the model.
"""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

import torch

from ramole_core.engine.draft import FEW_DRAFTS, DraftGains, Drafts
from ramole_core.engine.kv import KvCache
from ramole_core.engine.model_runner import ModelRunner, Piece
from ramole_core.engine.placement import Placer
from ramole_core.engine.prefill import Prefill
from ramole_core.engine.request_state import RequestState
from ramole_core.engine.running_batch import Event, RunningBatch
from ramole_core.engine.waiting import CLOSED, ROW_TOKENS, FairShare, WaitingQueue
from ramole_core.errors import RamoleError
from ramole_core.kernels.likeliest import likeliest
from ramole_core.turns import SHARE, Source


@dataclass(frozen=True)
class Sizes:
    """Limits of a batch."""

    max_batch: int = 32
    """Most running rows."""
    max_queue: int = 128
    """Most waiting requests; one more is `Busy`."""
    prefill_chunk: int = 256
    """Prompt tokens that a step reads while rows decode."""
    draft_rows: int = 8
    """Rows of a step up to which requests may have draft tokens (`draft.py`); 0: none has."""


class Scheduler:
    """The queue and the running batch. `submit`, `places` and `behind` may be called from any
    thread; `step` by one at a time."""

    def __init__(self, *, kv: KvCache, runner: ModelRunner, placer: Placer, sizes: Sizes):
        self.sizes = sizes
        self._kv, self._runner = kv, runner
        self.queue = WaitingQueue(most=sizes.max_queue, rows=sizes.max_batch)
        self.batch = RunningBatch(kv, placer)
        self.shares = FairShare()
        self._prefill = Prefill(
            self.batch,
            self.queue,
            self.shares,
            kv=kv,
            runner=runner,
            waits=lambda: self._following() is not None,
        )
        self._draft_gains = DraftGains(runner.way)

    # --- the door -----------------------------------------------------------------------------

    def submit(self, state: RequestState) -> RequestState:
        """Queue a request; raises RamoleError where it could never run, Busy where MAX_QUEUE others
        wait, or its address has its share of the queue."""
        self._kv.check(state.length)
        self.queue.add(state)
        return state

    def places(self) -> Mapping[RequestState, int]:
        """The place of every request that waits, the next one first."""
        return self.queue.places(self.batch.states)

    @property
    def running(self) -> int:
        return len(self.batch.states)

    @property
    def waiting(self) -> int:
        return len(self.queue)

    @property
    def idle(self) -> bool:
        return not (len(self.queue) or self.running or len(self.batch.again))

    def stats(self) -> Mapping[str, int | float]:
        held = {
            "running": self.running,
            "waiting": self.waiting,
            "kv_bytes": self._kv.held_bytes,
            "kv_cached_bytes": self._kv.cached_bytes,
            "kv_made_bytes": self._kv.nbytes,
        }
        return asdict(self.batch.stats) | held

    # --- one iteration ------------------------------------------------------------------------

    @torch.inference_mode()
    def step(self) -> list[Event]:
        """Admit, read one chunk of prompts, and decode one token of every running row."""
        batch = self.batch
        self._drop_cancelled()
        self._let_in()
        self._prefill.read(self.sizes.prefill_chunk)
        if batch.rows:
            self._decode()
        if self.idle:
            self._runner.rest()
        return batch.take_events()

    @torch.inference_mode()
    def fail(self) -> list[RequestState]:
        """Fail every request after an unforeseen error, and free what they held."""
        lost = [*self.batch.states, *self.batch.again.take_in(), *self.queue.take_all()]
        for state in lost:
            self.batch.leave(state)
        self.batch.take_events()
        self._runner.forget()
        return lost

    def close(self) -> None:
        """Fail every request, and refuse those that come later."""
        self.queue.close()
        self.batch.again.closed = True
        for state in self.fail():
            state.deliver(state, RamoleError(CLOSED))

    def _drop_cancelled(self) -> None:
        running = [*self.batch.states, *self.batch.again.take_in()]
        gone = [*self.queue.take_cancelled(), *(state for state in running if state.cancelled)]
        for state in gone:
            state.end("cancelled")
            self.batch.finish(state)

    def _let_in(self) -> None:
        batch = self.batch
        if any(state.mix is None for state in batch.states):
            return  # one that runs waits for adapters, and a new one would pass it
        while self.running < self.sizes.max_batch and (state := self._following()) is not None:
            traced = state.request.trace
            sequence = self._kv.open(state.content, state.length, traced=traced)
            if sequence is None:
                return
            state.sequence = sequence
            try:
                if not batch.pin(state):
                    batch.leave(state)
                    return
            except Exception as error:
                self.queue.remove(state)
                batch.fail(state, error)
                continue
            self.queue.remove(state)
            state.admitted = time.perf_counter()
            batch.stats.admitted += 1
            batch.skip_cached(state, 0)
            self._charge_prompt(state)
            batch.reading.append(state)

    def _following(self) -> RequestState | None:
        """Return the next waiting request whose source is within its share of time and memory."""
        if not len(self.queue):
            return None
        places, exceeding = self.places(), self.shares.exceeding(self._asking())
        most = self._kv.limit // self._kv.token_bytes // max(1, min(self.shares.known(), SHARE))
        for state in places:
            held = [one.length for one in self.batch.states if one.source == state.source]
            fits = not held or not any(state.source) or sum(held) + state.length <= most
            if fits and state.source not in exceeding:
                return state
        return None

    def _charge_prompt(self, state: RequestState) -> None:
        """Count the whole prompt when it is admitted, at the mean price of a token: who sends
        many long ones at once has had too much before the first is read."""
        stats = self.batch.stats
        if state.reading is None and stats.prefill_tokens:
            price = stats.prefill_seconds / stats.prefill_tokens
            self.shares.add(state.unfed * price, [(state.source, 1.0)])

    def _asking(self) -> list[Source]:
        return [s.source for s in [*self.queue.states(), *self.batch.states]]

    def behind(self, source: Source) -> bool:
        """Whether this source has had more than its share, while others have requests or had some
        lately; thread-safe."""
        asking = [source, *self._asking(), *self.shares.lately()]
        return source in self.shares.exceeding(asking)

    # --- rows that decode -----------------------------------------------------------------------

    def _decode(self) -> None:
        began, batch, chunk = time.perf_counter(), self.batch, self.sizes.prefill_chunk
        rows = [state for state in list(batch.rows) if batch.pin_or_fail(state)]
        if not rows:
            self._prefill.after_decode(chunk, rows=0)
            return
        drafts = [self._drafted(state, len(rows)) for state in rows]
        pieces: list[Piece] = []
        for state, draft in zip(rows, drafts, strict=True):
            piece = batch.piece(state, 1)
            pieces.append(piece)
            pieces += [replace(piece, ids=[token], ahead=n) for n, token in enumerate(draft, 1)]
        output = self._runner.forward(pieces, self._kv)
        chosen, first, made = likeliest(output.logits), 0, 0
        for state, draft in zip(rows, drafts, strict=True):
            for row in range(first, first + 1 + len(draft)):
                if not batch.commit(state, 1, row, output):
                    break
                if not batch.advance(state, row, chosen[row], output):
                    break
                made += 1
                if state.draft is not None:
                    state.draft.push(state.ids[-1])
                follows = draft[row - first : row - first + 1] == state.ids[-1:]
                if state.finish_reason or not follows or row + 1 in output.faults:
                    break
                batch.stats.accepted_tokens += 1
            first += 1 + len(draft)
        batch.stats.draft_tokens += sum(map(len, drafts))
        for state in rows:
            if state.finish_reason:
                batch.finish(state)
        self._prefill.after_decode(chunk, rows=len(rows))
        batch.stats.decode_tokens += made
        batch.stats.decode_forwards += 1
        seconds = time.perf_counter() - began
        batch.stats.decode_seconds += seconds
        self.shares.add(seconds, [(state.source, 1 + state.fed / ROW_TOKENS) for state in rows])

    def _drafted(self, state: RequestState, rows: int) -> list[int]:
        """The draft tokens of a row that decodes beside others, `rows` in all."""
        most = self.sizes.draft_rows // rows - 1
        if most < FEW_DRAFTS or not self._runner.replays:
            return []
        if state.draft is None:
            first = next(iter(state.segments.open.names), "")
            state.draft = Drafts.begin(state.prompt_ids, state.tokenizer, self._draft_gains, first)
            for token in state.tokens:
                state.draft.read(token)
        end = min(state.length, state.segment.end)
        return state.draft.next(end - state.fed, most)
