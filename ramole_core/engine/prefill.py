"""The reading half of a step: a chunk of prompts or examples, else answers for their effects.

Prompts are read in the order in which they came, but half of a chunk is for prompts that end with
it, so that a short one does not wait until a long one is read. A request waits while one before it
reads what it needs as well, and finds it in the cache then.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ramole_core.engine.kv import KvCache
from ramole_core.engine.model_runner import ModelRunner, Output
from ramole_core.engine.request_state import RequestState
from ramole_core.engine.running_batch import RunningBatch
from ramole_core.engine.waiting import FairShare, WaitingQueue
from ramole_core.kernels.likeliest import likeliest

MIN_SHARED = 8
"""Fewest shared tokens for which a request waits."""
IDLE_CHUNKS = 4
"""Chunks of prompts that a step may read while no row decodes."""
MAX_TAIL = 8
"""Tokens that are read in the same step, behind a chunk that has read all before them."""
REREAD_TOKENS = 32
"""Tokens of answers that are read again in one forward between two steps of rows that decode."""
IDLE_REREAD_TOKENS = 64
"""The same while no row decodes: a new prompt waits for it."""
MAX_PASSED_STEPS = 16
"""Steps with prompts to read that may pass before finished answers are read again all the same."""
EXAMPLE_TOKENS_PER_STEP = 4
"""Tokens of examples (`PairReading`) that may be read for each step in which rows decode; what is
saved up is read at once. Without it a search would slow all others as a prompt does that never
ends; so it costs them about what one row more does. Where no row decodes there is no limit."""


@dataclass(frozen=True)
class Share:
    """One request's tokens in a chunk."""

    state: RequestState
    count: int


def next_chunk(reading: Sequence[RequestState], budget: int) -> list[Share]:
    """Choose as many tokens as the budget allows, each request's within one segment."""
    first = _share(reading[0], budget) if reading and budget > 0 else None
    if first is None:
        return []
    chunk, left = [first], budget // 2 if first.count > budget // 2 else budget - first.count
    for state in sorted(reading[1:], key=lambda state: state.unfed):
        ends = state.unfed == _share(state, left).count
        if ends and not any(_waits_for(state, share) for share in chunk):
            chunk.append(_share(state, left))
            left -= state.unfed
    left = budget - sum(share.count for share in chunk[1:])
    chunk[0] = _share(first.state, left)
    left -= chunk[0].count
    taken = [share.state for share in chunk]
    for state in reading:
        if left > 0 and state not in taken and not any(_waits_for(state, one) for one in chunk):
            chunk.append(_share(state, left))
            left -= chunk[-1].count
    return chunk


def _share(state: RequestState, most: int) -> Share:
    return Share(state, min(most, state.unfed, state.segment.end - state.fed))


def _waits_for(state: RequestState, share: Share) -> bool:
    """Whether the other request is reading tokens that this one could share."""
    other = share.state
    if state.request.trace and not other.request.trace and state.segments.mixed:
        return False  # it needs the trace rows
    end = max(0, min(other.fed + share.count, len(state.content) - 1, len(other.content)))
    mine, its = state.content[:end], other.content[:end]
    differ = np.flatnonzero((mine != its).any(1))
    common = int(differ[0]) if len(differ) else end
    return common - state.fed >= MIN_SHARED


class Prefill:
    """The reading half of a step."""

    def __init__(
        self,
        batch: RunningBatch,
        queue: WaitingQueue,
        shares: FairShare,
        *,
        kv: KvCache,
        runner: ModelRunner,
        waits: Callable[[], bool],
    ):
        """`waits`: whether a request whose turn it is waits for a row."""
        self._batch, self._queue, self._shares = batch, queue, shares
        self._kv, self._runner, self._waits = kv, runner, waits
        self._saved = 0
        """Tokens of examples that may be read beside rows that decode."""
        self._spare = 0
        """The same of answers that are read again."""
        self._passed = 0
        """Steps since answers that wait for it were read again."""

    def read(self, size: int) -> None:
        """Read a chunk of `size` tokens, and the few remaining tokens of others that shared its
        prefix."""
        budget = size * (1 if self._batch.rows else IDLE_CHUNKS)
        chunk = self._chunk(size, budget)
        overdue = self._passed >= MAX_PASSED_STEPS
        self._passed = self._passed + 1 if self._batch.again.states else 0
        if not chunk or overdue:
            self._read_again(overdue=overdue)
        if not chunk:
            return
        self._prefill(chunk)
        left = budget - sum(share.count for share in chunk)
        read = [share.state for share in chunk]
        waited = any(state not in read for state in self._batch.reading)
        if waited and left > 0 and (more := self._chunk(size, left, most=MAX_TAIL)):
            self._prefill(more)

    def after_decode(self, size: int, *, rows: int) -> None:
        """Count a step of so many rows towards the next examples and second readings."""
        waits = any(state.reading is not None for state in self._batch.reading)
        self._saved = min(self._saved + EXAMPLE_TOKENS_PER_STEP, size) if waits else 0
        if not rows:  # the adapters of what comes next have no room yet: no row is slowed
            self._saved = size
        answers = len({state.number for state in self._batch.again.states})
        spare = self._spare + answers if rows else REREAD_TOKENS
        self._spare = min(spare, REREAD_TOKENS) if answers else 0

    def _chunk(self, size: int, budget: int, *, most: int | None = None) -> list[Share]:
        batch, ready = self._batch, []
        for state in list(batch.reading):
            assert state.sequence is not None
            before = state.fed
            self._kv.extend(state.sequence, state.content, traced=state.request.trace)
            batch.skip_cached(state, before)
            beside = state.reading is not None and batch.rows
            if beside and self._saved < min(state.unfed, size):
                continue  # an example waits until the decoding rows have made enough steps
            if (most is None or state.unfed <= most) and batch.pin_or_fail(state):
                ready.append(state)
        return next_chunk(ready, budget)

    def _read_again(self, *, overdue: bool) -> None:
        """Read a chunk of finished answers, for their effects; one is not begun while a request
        waits whose turn it is, unless it is `overdue`."""
        batch, decoding = self._batch, bool(self._batch.rows)
        if decoding and self._spare < REREAD_TOKENS:
            return
        budget = REREAD_TOKENS if decoding else IDLE_REREAD_TOKENS
        ready, left, waits = [], budget, not overdue and self._waits()
        for state in list(batch.again.states):
            if left <= 0:
                break
            if state.sequence is None and not waits:
                state.sequence = self._kv.open(state.content, state.length, becomes=state.becomes)
            if state.sequence is None:
                break
            if batch.pin_or_fail(state):
                ready.append(state)
                left -= state.unfed
        chunk = next_chunk(ready, budget)
        if not chunk:
            return
        self._spare = 0 if decoding else self._spare
        self._passed = 0
        began = time.perf_counter()
        self._forward(chunk)
        batch.stats.effect_tokens += sum(share.count for share in chunk)
        seconds = time.perf_counter() - began
        batch.stats.effect_seconds += seconds
        self._shares.add(seconds, [(one.state.source, float(one.count)) for one in chunk])

    def _prefill(self, chunk: Sequence[Share]) -> None:
        began, stats = time.perf_counter(), self._batch.stats
        self._forward(chunk)
        whole = sum(share.count for share in chunk)
        stats.prefill_tokens += whole
        stats.prefill_forwards += 1
        seconds = time.perf_counter() - began
        stats.prefill_seconds += seconds
        for share in chunk:
            if share.state.reading is not None:  # a prompt was counted when it was admitted
                self._shares.add(seconds * share.count / whole, [(share.state.source, 1.0)])

    def _forward(self, chunk: Sequence[Share]) -> None:
        """Run a chunk; a request whose prompt is read gets its first token."""
        batch = self._batch
        pieces = [batch.piece(share.state, share.count) for share in chunk]
        output = self._runner.forward(pieces, self._kv)
        chosen = likeliest(output.logits)
        for row, (state, count) in enumerate((share.state, share.count) for share in chunk):
            if not batch.commit(state, count, row, output):
                continue
            if state.reading is not None:
                if state in batch.reading:  # a second reading has tokens of its own
                    self._saved = max(0, self._saved - count)
                self._add_example(state, count, row, output)
                continue
            if state.request.prompt_logprobs:
                kept = output.kept.get(row, output.logits[row : row + 1])
                state.add_prompt_logits(kept, state.fed)
            if state.unfed or not batch.advance(state, row, chosen[row], output):
                continue
            batch.reading.remove(state)
            batch.rows.append(state)
            if state.finish_reason:
                batch.finish(state)

    def _add_example(self, state: RequestState, count: int, row: int, output: Output) -> None:
        """Add a forward's logits to an example; the last one ends the request, others requeue
        it."""
        batch, reading = self._batch, state.reading
        assert reading is not None and state.sequence is not None
        if wanted := reading.wanted(state.fed - count, state.fed):
            kept = output.kept.get(row, output.logits[row : row + 1])
            reading.add(kept[-wanted:], state.fed)
        if state.unfed:
            return
        if not reading.advance():
            batch.finish(state, reading)
            return
        state.take_pair()
        self._kv.close(state.sequence, keep=False)
        state.sequence = self._kv.open(state.content, state.length)
        batch.reading.remove(state)
        if state.sequence is None:  # others still hold what it shared with them
            batch.unpin(state)
            self._queue.put_back(state)
        else:
            batch.reading.append(state)
