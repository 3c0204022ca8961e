"""Continuous batching: at every step requests come in, prompts are read, and all rows get a token.

A step admits what fits, feeds one chunk of prompts, and decodes one token of every running row, in
one forward whatever their methods, adapters, k and decoding settings (iteration-level scheduling,
Orca; S-LoRA, arXiv 2311.03285). It has no threads of its own: whoever calls `step` runs the model.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import torch
from transformers import PreTrainedTokenizerBase

from ramole_core.composition import Candidate
from ramole_core.engine.kv import KvCache
from ramole_core.engine.model_runner import ModelRunner, Output
from ramole_core.engine.placement import Placement
from ramole_core.engine.request_state import RequestState, new_request_state
from ramole_core.engine.waiting import WaitingQueue
from ramole_core.errors import RamoleError
from ramole_core.layers import Layout, RowMix
from ramole_core.request import Generation, Request, Step

log = logging.getLogger(__name__)
Event = tuple[RequestState, Step | Generation | RamoleError]
ALONE = 4
"""A step may read this many chunks of prompts where no row waits for its next token."""


@dataclass(frozen=True)
class Sizes:
    """How much may happen at the same time."""

    max_batch: int = 32
    """Rows that run."""
    max_queue: int = 128
    """Requests that wait; one more is `Busy`."""
    prefill_chunk: int = 256
    """Prompt tokens that a step reads while rows decode."""


@dataclass
class Stats:
    """What the scheduler has done since it began; seconds are of the forwards and around them."""

    admitted: int = 0
    finished: int = 0
    prefill_tokens: int = 0
    prefill_seconds: float = 0.0
    prefill_forwards: int = 0
    decode_tokens: int = 0
    decode_seconds: float = 0.0
    decode_forwards: int = 0


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
        self._stats = Stats()

    # --- the door -----------------------------------------------------------------------------

    def submit(
        self,
        request: Request,
        candidates: Sequence[Candidate],
        placement: Placement,
        *,
        prompt_ids: list[int],
        room: int,
        session: str = "",
        address: str = "",
        deliver: Callable[[RequestState, Step | Generation | Exception], None] | None = None,
    ) -> RequestState:
        """Put a request into the queue; `deliver` is called with all that comes of it.

        Raises RamoleError where it could never run, Busy where MAX_QUEUE others wait, or its
        address has its share of the queue.
        """
        self._kv.check(len(prompt_ids) + room)

        def make(number: int) -> RequestState:
            state = new_request_state(
                number,
                request,
                session=session,
                address=address,
                prompt_ids=prompt_ids,
                candidates=tuple(candidates),
                placement=placement,
                room=room,
                tokenizer=self._tokenizer,
            )
            if deliver is not None:
                state.deliver = deliver
            return state

        return self.queue.add(make, session=session, address=address)

    def cancel(self, state: RequestState) -> None:
        """End one request at the next step; the others do not feel it."""
        state.cancel()

    def place(self, state: RequestState) -> int:
        """1 is next, 0 runs or has ended."""
        return self.places().get(state, 0)

    def places(self) -> dict[RequestState, int]:
        """The place of every request that waits."""
        order = self.queue.order([*self._reading, *self._rows])
        return {state: number for number, state in enumerate(order, 1)}

    @property
    def running(self) -> int:
        return len(self._reading) + len(self._rows)

    @property
    def waiting(self) -> int:
        return len(self.queue)

    @property
    def idle(self) -> bool:
        return not (len(self.queue) or self._reading or self._rows)

    def stats(self) -> Mapping[str, int | float]:
        """Counters, and what is held now."""
        held = {"running": self.running, "waiting": self.waiting, "kv_bytes": self._kv.nbytes}
        return asdict(self._stats) | held

    # --- one iteration ------------------------------------------------------------------------

    @torch.inference_mode()
    def step(self) -> list[Event]:
        """Admit, read one chunk of prompts, and decode one token of every running row."""
        events: list[Event] = []
        self._drop_cancelled(events)
        self._let_in(events)
        if self._reading:
            self._prefill(events)
        if self._rows:
            self._decode(events)
        if self.idle:
            self._runner.forget()
        return events

    @torch.inference_mode()
    def fail(self) -> list[RequestState]:
        """Give up every request, after an error that nobody foresaw; frees what they held."""
        lost = [*self._reading, *self._rows, *self.queue.take_all()]
        for state in lost:
            self._leave(state)
        self._runner.forget()
        return lost

    def _drop_cancelled(self, events: list[Event]) -> None:
        gone = self.queue.take_cancelled()
        gone += [state for state in [*self._reading, *self._rows] if state.cancelled]
        for state in gone:
            state.end("cancelled")
            self._finish(state, events)

    def _let_in(self, events: list[Event]) -> None:
        while len(self.queue) and self.running < self.sizes.max_batch:
            state = self.queue.order([*self._reading, *self._rows])[0]
            arena = self._kv.reserve(state.length)
            if arena is None:
                return
            try:
                mix = self._pin(state.placement)
            except Exception as error:
                self._kv.give_back(arena)
                self.queue.remove(state)
                events.append((state, fault_of(error, state.request.method)))
                continue
            if mix is None:
                self._kv.give_back(arena)
                return
            self.queue.remove(state)
            state.mix, state.arena = mix, arena
            state.admitted = time.perf_counter()
            self._stats.admitted += 1
            self._reading.append(state)

    def _prefill(self, events: list[Event]) -> None:
        began = time.perf_counter()
        states, counts = self._chunk()
        output, past = self._runner.prefill(states, counts)
        chosen = output.logits.float().argmax(-1).tolist()
        for row, (state, count) in enumerate(zip(states, counts, strict=True)):
            if row in output.faults:
                self._fail(state, output.faults[row], events)
                continue
            state.read += count
            if state.read < len(state.prompt_ids):
                state.past = past
                if (found := output.gates[row]) is not None:
                    state.gates.append(found)
                continue
            self._advance(state, row, chosen[row], output, events)
            state.past = None
            if not state.finish_reason:
                assert state.arena is not None
                self._kv.append(state.arena, state, past, row, len(state.prompt_ids))
                self._rows.append(state)
                self._reading.remove(state)
            else:
                self._finish(state, events)
        self._stats.prefill_tokens += sum(counts)
        self._stats.prefill_forwards += 1
        self._stats.prefill_seconds += time.perf_counter() - began

    def _chunk(self) -> tuple[list[RequestState], list[int]]:
        """Whose prompts are read now, and how many tokens of each.

        A prompt that is longer than a chunk goes alone, a piece a step; short ones of about the
        same length go together.
        """
        budget = self.sizes.prefill_chunk * (1 if self._rows else ALONE)
        first = self._reading[0]
        left = len(first.prompt_ids) - first.read
        if first.past is not None or left > budget:
            return [first], [min(left, budget)]
        states, longest = [first], left
        for state in self._reading[1:]:
            length = len(state.prompt_ids)
            widest = max(longest, length)
            fits = widest * (len(states) + 1) <= budget and 2 * min(longest, length) >= widest
            if state.past is None and fits:
                states.append(state)
                longest = widest
        return states, [len(state.prompt_ids) for state in states]

    def _decode(self, events: list[Event]) -> None:
        began = time.perf_counter()
        rows, output = self._runner.decode()
        chosen = output.logits.float().argmax(-1).tolist()
        for row, state in enumerate(rows):
            if row in output.faults:
                self._fail(state, output.faults[row], events)
            else:
                self._advance(state, row, chosen[row], output, events)
        for state in rows:
            if state.finish_reason:
                self._finish(state, events)
        self._stats.decode_tokens += len(rows)
        self._stats.decode_forwards += 1
        self._stats.decode_seconds += time.perf_counter() - began

    def _advance(
        self, state: RequestState, row: int, token: int, output: Output, events: list[Event]
    ) -> None:
        """The next token of one row: the batch's own choice where the request is greedy."""
        greedy = token if state.request.temperature == 0 else None
        step = state.advance(greedy, output.logits[row], output.gates[row], self._eos)
        events.append((state, step))

    def _fail(self, state: RequestState, error: Exception, events: list[Event]) -> None:
        """A fault in one method: it ends that request, with one sentence."""
        self._leave(state)
        events.append((state, fault_of(error, state.request.method)))

    def _finish(self, state: RequestState, events: list[Event]) -> None:
        self._leave(state)
        self._stats.finished += 1
        events.append((state, state.generation(self._tokenizer, self._layout)))

    def _leave(self, state: RequestState) -> None:
        """Give back whatever the state holds."""
        if state in self._rows:
            self._rows.remove(state)
            self._kv.remove(state)
        elif state in self._reading:
            self._reading.remove(state)
            if state.arena is not None:
                self._kv.give_back(state.arena)
        if state.mix is not None:
            self._release(state.mix)
        state.mix = state.arena = state.past = None


def fault_of(error: Exception, method: str) -> RamoleError:
    """One sentence for whoever asked; what nobody foresaw goes into the log."""
    if isinstance(error, RamoleError):
        return error
    log.error("A request failed in method %s.", method, exc_info=error)
    return RamoleError(
        f"Method {method} failed on this request ({type(error).__name__}: {error}); the other "
        "requests go on. Choose another method, or other adapters."
    )
