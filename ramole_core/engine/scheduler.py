"""Continuous batching: each step admits requests, reads prompts and decodes a token of every row.

A step admits what fits, feeds one chunk of prompts, and decodes one token of every running row, in
one forward whatever their methods, adapters, k and decoding settings (iteration-level scheduling,
Orca; S-LoRA, arXiv 2311.03285). It has no threads of its own: the caller of `step` runs the model.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial

import torch
from transformers import PreTrainedTokenizerBase

from ramole_core.engine.chunk import Share, next_chunk
from ramole_core.engine.decoding import spell_token
from ramole_core.engine.draft import MOST, Draft, Habits
from ramole_core.engine.effect_reading import ReadAgain
from ramole_core.engine.fair_share import ROW_TOKENS, FairShare
from ramole_core.engine.kv import KvCache
from ramole_core.engine.model_runner import ModelRunner, Output, Piece
from ramole_core.engine.pair_reading import PairReading
from ramole_core.engine.placement import Placement
from ramole_core.engine.request_state import RequestState
from ramole_core.engine.waiting import WaitingQueue
from ramole_core.errors import RamoleError, fault_of
from ramole_core.kernels.likeliest import likeliest
from ramole_core.layers import Layout, RowMix
from ramole_core.request import Generation, Step
from ramole_core.turns import SHARE, Source

Event = tuple[RequestState, Step | Generation | PairReading | RamoleError]
ALONE = 4
"""A step may read this many chunks of prompts where no row waits for its next token."""
MAX_TAIL = 8
"""Tokens that are read in the same step, behind a chunk that has read all before them."""
ASIDE = 4
"""Tokens of examples (`PairReading`) that may be read for each step in which rows decode; what is
saved up is read at once. Without it a search would slow all others as a prompt does that never
ends; so it costs them about what one row more does. Where no row decodes there is no limit."""


@dataclass(frozen=True)
class Sizes:
    """Limits of a batch."""

    max_batch: int = 32
    """Rows that run."""
    max_queue: int = 128
    """Requests that wait; one more is `Busy`."""
    prefill_chunk: int = 256
    """Prompt tokens that a step reads while rows decode."""
    draft_rows: int = 8
    """Rows of a step up to which requests may have draft tokens (`draft.py`); 0: none has."""


@dataclass
class Stats:
    """Counters of the scheduler; seconds are of the forwards and around them."""

    admitted: int = 0
    finished: int = 0
    prefill_tokens: int = 0
    shared_tokens: int = 0
    """Tokens that were found in the cache and not read again."""
    prefill_seconds: float = 0.0
    prefill_forwards: int = 0
    decode_tokens: int = 0
    decode_seconds: float = 0.0
    decode_forwards: int = 0
    draft_tokens: int = 0
    """Tokens that were fed as drafts."""
    accepted_tokens: int = 0
    """Those of them that the answer went on with."""
    effect_tokens: int = 0
    """Tokens of answers that were read again for their effects."""
    effect_seconds: float = 0.0


class Scheduler:
    """The queue and the running batch. `submit`, `cancel` and `place` may be called from any
    thread; `step` by one at a time."""

    def __init__(
        self,
        *,
        tokenizer: PreTrainedTokenizerBase,
        layout: Layout,
        kv: KvCache,
        runner: ModelRunner,
        eos: frozenset[int],
        sizes: Sizes,
        pin: Callable[[Placement], RowMix | None],
        release: Callable[[RowMix], None],
    ):
        """`pin` takes what a request needs in the bank, None where it is not to be had now;
        `release` gives it back."""
        self.sizes = sizes
        self._tokenizer, self._layout, self._eos = tokenizer, layout, eos
        self._kv, self._runner = kv, runner
        self._pin, self._release = pin, release
        self.queue = WaitingQueue(most=sizes.max_queue, rows=sizes.max_batch)
        self._reading: list[RequestState] = []
        self._rows: list[RequestState] = []
        self._saved = 0
        """Tokens of examples that may be read beside rows that decode."""
        self._again = ReadAgain()
        self._habits = Habits()
        self.shares = FairShare()
        self._stats = Stats()

    # --- the door -----------------------------------------------------------------------------

    def submit(
        self,
        state: RequestState,
        deliver: Callable[[RequestState, Step | Generation | PairReading | Exception], None]
        | None = None,
    ) -> RequestState:
        """Queue a request; `deliver` gets its results.

        Raises RamoleError where it could never run, Busy where MAX_QUEUE others wait, or its
        address has its share of the queue.
        """
        self._kv.check(state.length)
        if deliver is not None:
            state.deliver = deliver
        self.queue.add(state)
        return state

    def read_again(self, states: Sequence[RequestState]) -> None:
        """Queue these pairs to be read beside the batch (`effect_reading.ReadAgain`)."""
        self._again.add(states)

    def cancel(self, state: RequestState) -> None:
        """End one request at the next step; others are unaffected."""
        state.cancel()

    def place(self, state: RequestState) -> int:
        """A request's place in the queue: 1 is next, 0 runs or has ended."""
        return self.places().get(state, 0)

    def places(self) -> Mapping[RequestState, int]:
        """The place of every request that waits, the next one first."""
        return self.queue.places([*self._reading, *self._rows])

    @property
    def running(self) -> int:
        return len(self._reading) + len(self._rows)

    @property
    def waiting(self) -> int:
        return len(self.queue)

    @property
    def idle(self) -> bool:
        return not (len(self.queue) or self._reading or self._rows or len(self._again))

    def stats(self) -> Mapping[str, int | float]:
        """Counters and current memory."""
        held = {
            "running": self.running,
            "waiting": self.waiting,
            "kv_bytes": self._kv.held_bytes,
            "kv_cached_bytes": self._kv.cached_bytes,
            "kv_made_bytes": self._kv.nbytes,
        }
        return asdict(self._stats) | held

    # --- one iteration ------------------------------------------------------------------------

    @torch.inference_mode()
    def step(self) -> list[Event]:
        """Admit, read one chunk of prompts, and decode one token of every running row."""
        events: list[Event] = []
        self._drop_cancelled(events)
        self._let_in(events)
        self._read(events)
        if self._rows:
            self._decode(events)
        if self.idle:
            self._runner.rest()
        return events

    @torch.inference_mode()
    def fail(self) -> list[RequestState]:
        """Fail every request after an unforeseen error, and free what they held."""
        lost = [*self._reading, *self._rows, *self._again.take_in(), *self.queue.take_all()]
        for state in lost:
            self._leave(state)
        self._runner.forget()
        return lost

    def _drop_cancelled(self, events: list[Event]) -> None:
        gone = self.queue.take_cancelled()
        running = [*self._reading, *self._rows, *self._again.take_in()]
        gone += [state for state in running if state.cancelled]
        for state in gone:
            state.end("cancelled")
            self._finish(state, events)

    def _let_in(self, events: list[Event]) -> None:
        if any(state.mix is None for state in [*self._reading, *self._rows]):
            return  # one that runs waits for adapters, and a new one would pass it
        while self.running < self.sizes.max_batch and (state := self._following()) is not None:
            traced = state.request.trace
            sequence = self._kv.open(state.content, state.length, traced=traced)
            if sequence is None:
                return
            state.sequence = sequence
            try:
                if not self._mix(state):
                    self._leave(state)
                    return
            except Exception as error:
                self.queue.remove(state)
                self._fail(state, error, events)
                continue
            self.queue.remove(state)
            state.admitted = time.perf_counter()
            self._stats.admitted += 1
            self._skip_cached(state, 0)
            self._charge_prompt(state)
            self._reading.append(state)

    def _following(self) -> RequestState | None:
        """The next request that waits and whose source has its share of time and of memory."""
        if not len(self.queue):
            return None
        places, exceeding = self.places(), self.shares.exceeding(self._asking())
        running = [*self._reading, *self._rows]
        most = self._kv.limit // self._kv.token_bytes // max(1, min(self.shares.known(), SHARE))
        for state in places:
            held = [one.length for one in running if one.source == state.source]
            fits = not held or not any(state.source) or sum(held) + state.length <= most
            if fits and state.source not in exceeding:
                return state
        return None

    def _charge_prompt(self, state: RequestState) -> None:
        """Count the whole prompt when it is admitted, at the mean price of a token: who sends
        many long ones at once has had too much before the first is read."""
        if state.reading is None and self._stats.prefill_tokens:
            price = self._stats.prefill_seconds / self._stats.prefill_tokens
            self.shares.add(state.unfed * price, [(state.source, 1.0)])

    def _asking(self) -> list[Source]:
        """The sources of all requests that wait or run."""
        return [s.source for s in [*self.queue.states(), *self._reading, *self._rows]]

    def behind(self, source: Source) -> bool:
        """Whether this source has had more than its share, while others have requests or had some
        lately; thread-safe."""
        asking = [source, *self._asking(), *self.shares.lately()]
        return source in self.shares.exceeding(asking)

    def _mix(self, state: RequestState) -> bool:
        """Pin the adapters of the next segment; False: no room now, and the request holds none
        meanwhile, which avoids a deadlock."""
        number = state.segments.at(state.fed)
        if state.mix is not None and state.mixed == number:
            return True
        if state.mix is not None:
            self._release(state.mix)
            state.mix = None
        state.mix = self._pin(state.segments.all[number].placement)
        state.mixed = number
        return state.mix is not None

    def _mixed(self, state: RequestState, events: list[Event]) -> bool:
        """Pin for a running request; a fault ends that request alone."""
        try:
            return self._mix(state)
        except Exception as error:
            self._fail(state, error, events)
            return False

    def _skip_cached(self, state: RequestState, before: int) -> None:
        """Count the tokens behind `before` that the cache had."""
        self._stats.shared_tokens += state.fed - before
        if state.request.trace and state.fed > before:
            assert state.sequence is not None
            state.gates.add_found(before, state.sequence.gates(before, state.fed))

    # --- prompts --------------------------------------------------------------------------------

    def _read(self, events: list[Event]) -> None:
        """Read a chunk of prompts, and the few remaining tokens of others that shared its prefix;
        without prompts, finished answers."""
        budget = self.sizes.prefill_chunk * (1 if self._rows else ALONE)
        chunk = self._chunk(budget, events)
        if not chunk:
            self._read_again(events)
            return
        self._prefill(chunk, events)
        left = budget - sum(share.count for share in chunk)
        waited = [state for state in self._reading if all(s.state is not state for s in chunk)]
        if waited and left > 0 and (more := self._chunk(left, events, most=MAX_TAIL)):
            self._prefill(more, events)

    def _chunk(self, budget: int, events: list[Event], *, most: int | None = None) -> list[Share]:
        ready = []
        for state in list(self._reading):
            assert state.sequence is not None
            before = state.fed
            self._kv.extend(state.sequence, state.content, traced=state.request.trace)
            self._skip_cached(state, before)
            if self._held_back(state):
                continue
            if (most is None or state.unfed <= most) and self._mixed(state, events):
                ready.append(state)
        return next_chunk(ready, budget)

    def _read_again(self, events: list[Event]) -> None:
        """Read a chunk of finished answers, for their effects."""

        def begin(state: RequestState) -> bool:
            if not len(self.queue):
                state.sequence = self._kv.open(state.content, state.length, becomes=state.becomes)
            return state.sequence is not None

        chunk = self._again.chunk(
            begin=begin,
            mixed=lambda state: self._mixed(state, events),
            decoding=bool(self._rows),
        )
        if not chunk:
            return
        began = time.perf_counter()
        self._forward(chunk, events)
        self._stats.effect_tokens += sum(share.count for share in chunk)
        seconds = time.perf_counter() - began
        self._stats.effect_seconds += seconds
        self.shares.add(seconds, [(share.state.source, float(share.count)) for share in chunk])

    def _held_back(self, state: RequestState) -> bool:
        """Whether an example waits until the decoding rows have made enough steps."""
        if state.reading is None or not self._rows:
            return False
        return self._saved < min(state.unfed, self.sizes.prefill_chunk)

    def _prefill(self, chunk: Sequence[Share], events: list[Event]) -> None:
        began = time.perf_counter()
        self._forward(chunk, events)
        self._stats.prefill_tokens += sum(share.count for share in chunk)
        self._stats.prefill_forwards += 1
        seconds = time.perf_counter() - began
        self._stats.prefill_seconds += seconds
        whole = sum(share.count for share in chunk)
        for share in chunk:
            if share.state.reading is not None:  # a prompt was counted when it was admitted
                self.shares.add(seconds * share.count / whole, [(share.state.source, 1.0)])

    def _forward(self, chunk: Sequence[Share], events: list[Event]) -> None:
        """Run a chunk; a request whose prompt is read gets its first token."""
        pieces = [self._piece(share.state, share.count) for share in chunk]
        output = self._runner.forward(pieces, self._kv)
        chosen = likeliest(output.logits)
        for row, (state, count) in enumerate((share.state, share.count) for share in chunk):
            if not self._commit(state, count, row, output, events):
                continue
            if state.reading is not None:
                if state in self._reading:  # a second reading has tokens of its own
                    self._saved = max(0, self._saved - count)
                self._add_example(state, count, row, output, events)
                continue
            if state.request.prompt_logprobs:
                kept = output.kept.get(row, output.logits[row : row + 1])
                state.add_prompt_logits(kept, state.fed)
            if state.unfed:
                continue
            if not self._advance(state, row, chosen[row], output, events):
                continue
            self._reading.remove(state)
            self._rows.append(state)
            if state.finish_reason:
                self._finish(state, events)

    def _piece(self, state: RequestState, count: int) -> Piece:
        assert state.sequence is not None and state.mix is not None
        ids = state.ids[state.fed : state.fed + count]
        if state.reading is not None:
            keep = max(1, state.reading.wanted(state.fed, state.fed + count))
            return Piece(state.sequence, ids, state.mix, keep=keep)
        traced = state.request.trace and state.segment.mixed
        keep = count if state.request.prompt_logprobs else 1
        return Piece(state.sequence, ids, state.mix, traced, keep)

    def _add_example(
        self, state: RequestState, count: int, row: int, output: Output, events: list[Event]
    ) -> None:
        """Add a forward's logits to an example; the last one ends the request, others requeue
        it."""
        reading = state.reading
        assert reading is not None and state.sequence is not None
        if wanted := reading.wanted(state.fed - count, state.fed):
            kept = output.kept.get(row, output.logits[row : row + 1])
            reading.add(kept[-wanted:], state.fed)
        if state.unfed:
            return
        if not reading.advance():
            self._leave(state)
            self._stats.finished += 1
            events.append((state, reading))
            return
        state.take_pair()
        self._kv.close(state.sequence, keep=False)
        state.sequence = self._kv.open(state.content, state.length)
        self._reading.remove(state)
        if state.sequence is None:  # others still hold what it shared with them
            assert state.mix is not None
            self._release(state.mix)
            state.mix = None
            self.queue.put_back(state)
        else:
            self._reading.append(state)

    def _commit(
        self, state: RequestState, count: int, row: int, output: Output, events: list[Event]
    ) -> bool:
        """Commit a piece's results to its request; False: its method failed."""
        if row in output.faults:
            self._fail(state, output.faults[row], events)
            return False
        start, sequence, gates = state.fed, state.sequence, output.gates[row]
        assert sequence is not None
        segment = state.segment
        if start + count <= len(state.content):
            content = state.content[start : start + count]
        else:
            content = state.segments.content(state.ids[start : start + count], start)
        self._kv.commit(sequence, content, gates, traced=gates is not None or not segment.mixed)
        if state.request.trace:
            state.gates.add(start, gates, segment, self._layout)
        return True

    # --- rows that decode -----------------------------------------------------------------------

    def _decode(self, events: list[Event]) -> None:
        began = time.perf_counter()
        rows = [state for state in list(self._rows) if self._mixed(state, events)]
        if not rows:  # the adapters of what comes next have no room yet: no row is slowed
            self._saved = self.sizes.prefill_chunk
            self._again.after_step(rows=0)
            return
        drafts = [self._drafted(state, len(rows)) for state in rows]
        pieces: list[Piece] = []
        for state, draft in zip(rows, drafts, strict=True):
            piece = self._piece(state, 1)
            pieces.append(piece)
            pieces += [replace(piece, ids=[token], ahead=n) for n, token in enumerate(draft, 1)]
        output = self._runner.forward(pieces, self._kv)
        chosen, first, made = likeliest(output.logits), 0, 0
        for state, draft in zip(rows, drafts, strict=True):
            for row in range(first, first + 1 + len(draft)):
                if not self._commit(state, 1, row, output, events):
                    break
                if not self._advance(state, row, chosen[row], output, events):
                    break
                made += 1
                if state.draft is not None:
                    state.draft.push(state.ids[-1])
                follows = draft[row - first : row - first + 1] == state.ids[-1:]
                if state.finish_reason or not follows or row + 1 in output.faults:
                    break
                self._stats.accepted_tokens += 1
            first += 1 + len(draft)
        self._stats.draft_tokens += sum(map(len, drafts))
        for state in rows:
            if state.finish_reason:
                self._finish(state, events)
        waits = any(state.reading is not None for state in self._reading)
        self._saved = min(self._saved + ASIDE, self.sizes.prefill_chunk) if waits else 0
        self._again.after_step(rows=len(rows))
        self._stats.decode_tokens += made
        self._stats.decode_forwards += 1
        seconds = time.perf_counter() - began
        self._stats.decode_seconds += seconds
        self.shares.add(seconds, [(state.source, 1 + state.fed / ROW_TOKENS) for state in rows])

    def _drafted(self, state: RequestState, rows: int) -> list[int]:
        """The draft tokens of a row that decodes beside others, `rows` in all."""
        if rows * (1 + MOST) > self.sizes.draft_rows or not self._runner.replays:
            return []
        if state.draft is None:
            leads = next(iter(state.segments.open.names), "")
            spelled = partial(spell_token, self._tokenizer)
            state.draft = Draft(state.prompt_ids, spelled, self._habits.of(leads))
            for token in state.tokens:
                state.draft.read(token)
        end = min(state.length, state.segment.end)
        return state.draft.tokens(state.draft.length(end - state.fed))

    def _advance(
        self, state: RequestState, row: int, token: int, output: Output, events: list[Event]
    ) -> bool:
        """Choose one row's next token: the batch's argmax for a greedy request without changed
        logits. False: its format allows none."""
        chosen = token if state.takes_likeliest else None
        try:
            events.append((state, state.advance(chosen, output.logits[row], self._eos)))
        except RamoleError as error:
            self._fail(state, error, events)
            return False
        return True

    def _fail(self, state: RequestState, error: Exception, events: list[Event]) -> None:
        """End a request whose method failed, with one sentence."""
        self._leave(state)
        events.append((state, fault_of(error, state.request.method)))

    def _finish(self, state: RequestState, events: list[Event]) -> None:
        self._leave(state)
        self._stats.finished += 1
        events.append((state, state.generation(self._tokenizer, self._layout)))

    def _leave(self, state: RequestState) -> None:
        """Release what a request holds."""
        if state in self._rows:
            self._rows.remove(state)
        elif state in self._reading:
            self._reading.remove(state)
        elif state in self._again.states:
            self._again.states.remove(state)
        if state.sequence is not None:
            self._kv.close(state.sequence, keep=state.reading is None)
        if state.mix is not None:
            self._release(state.mix)
        state.mix = state.sequence = None
