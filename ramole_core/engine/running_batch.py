"""The running requests: what each holds, and how a forward's output is applied to it.

A request is in `reading` until its prompt is read, then in `rows`, which decode. From its
admission to its end it holds pages of the key-value cache, and the adapters of the segment that is
fed are pinned in the bank. A fault of its method ends that request alone.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from ramole_core.engine.kv import KvCache
from ramole_core.engine.model_runner import Output, Piece
from ramole_core.engine.pair_reading import PairReading
from ramole_core.engine.placement import Placer
from ramole_core.engine.request_state import RequestState
from ramole_core.engine.waiting import CLOSED
from ramole_core.errors import RamoleError, fault_of
from ramole_core.request import Generation, Step

Event = tuple[RequestState, Step | Generation | PairReading | RamoleError]


@dataclass
class Stats:
    """Counters of the batch; seconds are of the forwards and around them."""

    admitted: int = 0
    finished: int = 0
    prefill_tokens: int = 0
    shared_tokens: int = 0
    """Tokens that were found in the cache."""
    prefill_seconds: float = 0.0
    prefill_forwards: int = 0
    decode_tokens: int = 0
    decode_seconds: float = 0.0
    decode_forwards: int = 0
    draft_tokens: int = 0
    """Tokens that were fed as drafts."""
    accepted_tokens: int = 0
    """Draft tokens that were accepted."""
    effect_tokens: int = 0
    """Tokens of answers that were read again for their effects."""
    effect_seconds: float = 0.0


class SecondReadings:
    """The queue of second readings; `add` from any thread, the rest by the scheduler."""

    def __init__(self):
        self._coming: deque[RequestState] = deque()
        self.states: list[RequestState] = []
        """In the order in which they came."""
        self.closed = False
        """Whether new readings are refused."""

    def __len__(self) -> int:
        return len(self._coming) + len(self.states)

    def add(self, states: Sequence[RequestState]) -> None:
        """Queue these readings; raises RamoleError where it is closed."""
        self._coming.extend(states)
        if self.closed:  # looked at last: what came before it was closed is taken in
            raise RamoleError(CLOSED)

    def take_in(self) -> list[RequestState]:
        """All readings, new ones included."""
        while self._coming:
            self.states.append(self._coming.popleft())
        return self.states


class RunningBatch:
    """The requests that run, for the thread that makes the steps."""

    def __init__(self, kv: KvCache, placer: Placer):
        self._kv, self._placer = kv, placer
        self.reading: list[RequestState] = []
        self.rows: list[RequestState] = []
        self.again = SecondReadings()
        self.events: list[Event] = []
        """The results of this step, until it ends."""
        self.stats = Stats()

    @property
    def states(self) -> list[RequestState]:
        return [*self.reading, *self.rows]

    def take_events(self) -> list[Event]:
        """Return and remove the results since the last call."""
        events, self.events = self.events, []
        return events

    def pin(self, state: RequestState) -> bool:
        """Pin the adapters of the next segment; False: no room now, and the request holds none
        meanwhile, which avoids a deadlock."""
        number = state.segments.at(state.fed)
        if state.mix is None or state.mixed != number:
            self.unpin(state)
            state.mix = self._placer.pin(state.segments.all[number].placement)
            state.mixed = number
        return state.mix is not None

    def pin_or_fail(self, state: RequestState) -> bool:
        """Pin for a running request; a fault ends that request alone."""
        try:
            return self.pin(state)
        except Exception as error:
            self.fail(state, error)
            return False

    def unpin(self, state: RequestState) -> None:
        if state.mix is not None:
            self._placer.release(state.mix)
        state.mix = None

    def skip_cached(self, state: RequestState, before: int) -> None:
        """Count the tokens behind `before` that the cache had."""
        self.stats.shared_tokens += state.fed - before
        if state.request.trace and state.fed > before:
            assert state.sequence is not None
            state.gates.add_found(before, state.sequence.gates(before, state.fed))

    def piece(self, state: RequestState, count: int) -> Piece:
        assert state.sequence is not None and state.mix is not None
        ids = state.ids[state.fed : state.fed + count]
        if state.reading is not None:
            keep = max(1, state.reading.wanted(state.fed, state.fed + count))
            return Piece(state.sequence, ids, state.mix, keep=keep)
        traced = state.request.trace and state.segment.mixed
        keep = count if state.request.prompt_logprobs else 1
        return Piece(state.sequence, ids, state.mix, traced, keep)

    def commit(self, state: RequestState, count: int, row: int, output: Output) -> bool:
        """Commit a piece's results to its request; False: its method failed."""
        if row in output.faults:
            self.fail(state, output.faults[row])
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
            state.gates.add(start, gates, segment, state.facts.layout)
        return True

    def advance(self, state: RequestState, row: int, token: int, output: Output) -> bool:
        """Choose one row's next token: the batch's argmax for a greedy request without changed
        logits. False: its format allows none."""
        chosen = token if state.takes_likeliest else None
        try:
            step = state.advance(chosen, output.logits[row])
        except RamoleError as error:
            self.fail(state, error)
            return False
        self.events.append((state, step))
        return True

    def fail(self, state: RequestState, error: Exception) -> None:
        """End a request whose method failed, with one sentence."""
        self.leave(state)
        self.events.append((state, fault_of(error, state.request.method)))

    def finish(self, state: RequestState, read: PairReading | None = None) -> None:
        """End a request with the pairs that are `read`, else with its answer as far as it came."""
        self.leave(state)
        self.stats.finished += 1
        self.events.append((state, state.generation() if read is None else read))

    def leave(self, state: RequestState) -> None:
        for states in (self.rows, self.reading, self.again.states):
            if state in states:
                states.remove(state)
        if state.sequence is not None:
            self._kv.close(state.sequence, keep=state.reading is None)
        self.unpin(state)
        state.sequence = None
