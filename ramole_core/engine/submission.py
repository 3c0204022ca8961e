"""Submit requests: read their adapters, place their methods' decisions, and queue their states."""

import math
from collections.abc import Callable
from dataclasses import replace

from ramole_core.composition import Candidate
from ramole_core.effects import Subset
from ramole_core.engine.decoding import skip_draws
from ramole_core.engine.effect_reading import EffectReading
from ramole_core.engine.fitting import Fit
from ramole_core.engine.pair_reading import PairReading
from ramole_core.engine.prompt import Prepared, leave_out
from ramole_core.engine.reader import RequestReader, format_of
from ramole_core.engine.request_state import Deliver, RequestState
from ramole_core.engine.scheduler import Scheduler
from ramole_core.engine.segments import Segment, SegmentMaker, Segments
from ramole_core.errors import Busy, RamoleError
from ramole_core.request import Request
from ramole_core.turns import never


class Submission:
    """The way into the scheduler's queue; thread-safe."""

    def __init__(
        self, scheduler: Scheduler, reader: RequestReader, maker: SegmentMaker, *, made_bytes: int
    ):
        """`made_bytes`: most bytes of the merges of all requests that wait."""
        self._scheduler, self._reader, self._maker = scheduler, reader, maker
        self._made_bytes = made_bytes

    def submit(
        self,
        prepared: Prepared,
        *,
        session: str = "",
        address: str = "",
        stopped: bool = False,
        cancelled: Callable[[], bool] = never,
        deliver: Deliver = lambda *_: None,
    ) -> RequestState:
        """Queue a request, after reading its adapters and placing its method's decision in the
        caller's thread; `deliver` gets its results. Of one that is `stopped` already, nothing is
        made.

        Raises RamoleError where it could never run, Busy where too many wait, Cancelled where
        `cancelled` is true before all its turns are placed.
        """
        self._scheduler.queue.check_place(session=session, address=address)
        prepared = leave_out(prepared)
        segments = self._maker.segments(prepared, bare=stopped, cancelled=cancelled)
        count = len(prepared.candidates) if stopped else len(segments.open.names)
        state = self._state(prepared, segments, prepared.candidates[:count])
        return self._queue(state, session, address, deliver)

    def submit_step(
        self, fit: Fit, *, session: str = "", address: str = "", deliver: Deliver
    ) -> RequestState:
        """Put the next step of a search into the queue: its examples, read by one row under the
        weights that it proposes; `deliver` gets the `PairReading` once all are read.

        Raises as `submit` does.
        """
        self._scheduler.queue.check_place(session=session, address=address)
        asked, reading = fit.ask(), fit.reading()
        placement = self._maker.placer.prepare(asked, fit.candidates, ephemeral=True)
        names = tuple(one.name for one in fit.candidates)
        segments = Segments((Segment(reading.longest, placement, names),))
        state = self._pair_state(replace(asked, trace=False), reading, segments, fit.candidates)
        return self._queue(state, session, address, deliver)

    def _queue(
        self, state: RequestState, session: str, address: str, deliver: Deliver
    ) -> RequestState:
        self._check_made(state.segments)
        state.session, state.address, state.deliver = session, address, deliver
        return self._scheduler.submit(state)

    def read_again(
        self, prepared: Prepared, state: RequestState, deliver: Deliver
    ) -> EffectReading:
        """Have the tokens of an answer that has ended read again, beside the batch; `deliver` gets
        a `PairReading` of each of the reading's states. Raises RamoleError where its method cannot
        use some of its adapters without the others."""
        prepared = leave_out(prepared)
        reading = EffectReading.of(state)
        request = replace(
            prepared.request, trace=False, effects=False, logprobs=None, prompt_logprobs=False
        )
        states: dict[RequestState, Subset] = {}
        for subset in reading.wanted:
            if subset == reading.everybody:
                segments = state.segments
            elif subset:
                segments = self._maker.with_subset(prepared, state.segments, subset)
            else:
                segments = self._maker.segments(prepared.bare())
            pairs = PairReading([reading.pair])
            one = self._pair_state(request, pairs, segments, state.candidates)
            one.session, one.address, one.deliver = state.session, state.address, deliver
            one.number, one.becomes = state.number, state.length
            states[one] = subset
        reading.states = states
        self._scheduler.batch.again.add(list(states))
        return reading

    def _check_made(self, segments: Segments) -> None:
        """Raise Busy where merges that wait would take more than the host cache may, RamoleError
        where this request's own do."""
        made = segments.made
        if len(made) > 1 and (own := sum(made.values())) > self._made_bytes:
            raise RamoleError(
                f"The merges of this conversation take {own / 2**20:.0f} MiB, and "
                f"RAMOLE_HOST_CACHE_MB keeps {self._made_bytes >> 20}; ask with fewer turns, or "
                "raise it."
            )
        if made:
            for state in self._scheduler.queue.states():
                made |= state.segments.made
            if len(made) > 1 and sum(made.values()) > self._made_bytes:
                raise Busy(
                    "The server is busy: the merges of the requests that wait fill its memory; "
                    "try again in a moment."
                )

    def _state(
        self, prepared: Prepared, segments: Segments, candidates: tuple[Candidate, ...]
    ) -> RequestState:
        """A waiting request, its given tokens counted as answered and drawn."""
        request, prompt, streamed = prepared.request, prepared.prompt, prepared.streamed_ids
        tokenizer, facts = self._reader.tokenizer, self._reader.facts
        ids = [*prompt.ids, *request.prefix_ids, *streamed[:-1]]  # the last one is streamed again
        state = RequestState(
            request,
            tokenizer,
            facts,
            ids=ids,
            prompt_length=len(prompt.ids),
            segments=segments,
            candidates=candidates,
            room=prompt.room,
            content=segments.content(() if request.prompt_logprobs else ids),
            extra={"dropped_turns": float(prompt.dropped)} if prompt.dropped else {},
            new=max(0, len(streamed) - 1),
            streamed=max(0, len(streamed) - 1),
            resumed_token=streamed[-1] if streamed else None,
            form=format_of(request, tokenizer, facts),
        )
        for token in state.tokens:
            state.push(token)
        state.logprobs = [math.nan] * len(state.tokens) if request.effects else []
        skip_draws(state.generator, request, len(state.tokens))
        return state

    def _pair_state(
        self,
        request: Request,
        reading: PairReading,
        segments: Segments,
        candidates: tuple[Candidate, ...],
    ) -> RequestState:
        """A waiting row that reads all pairs, under the request's adapters."""
        state = RequestState(
            request,
            self._reader.tokenizer,
            self._reader.facts,
            ids=[],
            prompt_length=reading.longest,
            segments=segments,
            candidates=candidates,
            content=segments.content(()),
            reading=reading,
        )
        state.take_pair()
        return state
