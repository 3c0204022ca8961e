"""The stream of one caller's requests: submit what fits, yield results as they come.

A request whose weights have to be found first stands aside meanwhile: of all requests of a caller
one search runs at a time, one row of the batch. An answer whose effects are requested is held back
until it has been read again (`effect_reading.py`), also where that fails.

Without an `EngineThread` the callers step the engine themselves, in turn (scripts, ZeroGPU).
"""

import queue
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, NotRequired, TypedDict, Unpack

from ramole_core.engine.effect_reading import EffectReading, without_effects
from ramole_core.engine.fitting import Fit
from ramole_core.engine.pair_reading import PairReading
from ramole_core.engine.prompt import Prepared
from ramole_core.engine.request_state import RequestState, Result
from ramole_core.errors import Busy, Cancelled, RamoleError
from ramole_core.request import Fitting, Generation, Step

if TYPE_CHECKING:
    from ramole_core.engine.engine import Engine

POLL_SECONDS = 0.05
"""Interval at which a caller's cancellation is polled while no result comes."""


class Caller(TypedDict):
    """The sender of a stream's requests, and callbacks of their progress, by index."""

    session: NotRequired[str]
    address: NotRequired[str]
    """Network address; empty: unknown, the session is used instead."""
    cancelled: Callable[[], bool]
    """Polled; once it is true the rest ends."""
    waiting: Callable[[int, int], None]
    """Called with a request's place in the queue when that changes; 0: it runs."""
    reading: NotRequired[Callable[[int, int, int], None]]
    """Called with how many tokens of a request's prompt are read, and of how many, once it runs and
    when that changes, until its first token."""
    fitting: NotRequired[Callable[[int, Fitting], None]]
    """Called after each step of the search for a request's weights."""


class RequestStream:
    """One caller's requests, submitted as they fit and yielded as results come."""

    def __init__(
        self,
        engine: "Engine",
        asked: Sequence[Prepared],
        **caller: Unpack[Caller],
    ):
        self._engine = engine
        self._asked = list(asked)
        self._session, self._address = caller.get("session", ""), caller.get("address", "")
        self._cancelled, self._waiting = caller["cancelled"], caller["waiting"]
        self._fitting = caller.get("fitting", lambda index, how: None)
        self._reading = caller.get("reading", lambda index, done, of: None)
        self._news: queue.SimpleQueue[tuple[RequestState, Result]] = queue.SimpleQueue()
        self._open: dict[RequestState, int] = {}
        self._places: dict[int, int] = {}
        self._done: dict[int, int] = {}
        """Tokens of its prompt that are read, last reported, by a request's index."""
        self._next = 0
        self._unfitted: list[int] = []
        """Requests whose weights have to be found; the first one's search runs."""
        self._fit: Fit | None = None
        self._trying: RequestState | None = None
        """The step of the search that is in the engine."""
        self._fitted: dict[int, Fitting] = {}
        self._held: dict[EffectReading, tuple[int, Generation, float]] = {}
        """Answers that are read again for their effects: index, answer, and when it ended."""
        self._stopped = False
        self._fault: Exception | None = None

    def __iter__(self) -> Iterator[tuple[int, Step | Generation]]:
        """Every token and answer, with its request's index; an error is raised once all ended."""
        try:
            while self._open or self._unfitted or self._held or self._next < len(self._asked):
                if not self._stopped and self._cancelled():
                    self._stop()
                self._feed()
                self._search()
                self._report_places()
                yield from self._take()
            if self._fault is not None:
                raise self._fault
        finally:
            self._stop()
            if self._fit is not None:
                self._fit.close()
            if self._engine.thread is None and (self._open or self._trying or self._held):
                self._engine.step()  # frees their rows

    def _stop(self) -> None:
        self._stopped = True
        again = [state for reading in self._held for state in reading.states]
        for state in (*self._open, *([self._trying] if self._trying else []), *again):
            state.cancel()
        self._wake()

    def _feed(self) -> None:
        """Submit as many as run at once, so that a long list does not fill the queue.

        What is stopped before it was fed goes in as well, to come out as cancelled.
        """
        most, before = self._engine.sizes.max_batch, self._next
        try:
            while self._next < len(self._asked) and most > sum(
                map(len, (self._open, self._unfitted, self._held))
            ):
                prepared = self._asked[self._next]
                if prepared.needs_fit and not self._stopped:
                    self._unfitted.append(self._next)
                elif not self._submit(self._next, prepared):
                    break
                self._next += 1
        finally:
            if self._next > before:
                self._wake()  # once, so that all are read together

    def _submit(self, index: int, prepared: Prepared) -> bool:
        """Queue a request; False: there is no place now."""
        try:
            how = {"stopped": self._stopped, "cancelled": self._cancelled}
            state = self._queue(index, partial(self._engine.submit, prepared, **how), self._fit)
        except Busy:
            raise
        except Cancelled:
            self._stop()
            return self._submit(index, prepared)  # it comes out as cancelled
        except RamoleError as error:
            self._fault = self._fault or error
            return True
        if state is None:
            return False
        self._open[state] = index
        if self._stopped:
            state.cancel()
        return True

    def _queue(
        self, index: int, submit: Callable[..., RequestState], before: object
    ) -> RequestState | None:
        """Return the submitted state; None: there is no place now. Raises Busy where nothing of
        this caller is in the engine, nor was `before`: else it waits for one of these."""
        try:
            return submit(
                session=self._session or self._asked[index].request.owner or "",
                address=self._address,
                deliver=self._deliver,
            )
        except Busy:
            if not (index or self._open or before):
                raise
            return None

    def _search(self) -> None:
        """Submit the search's next step, or the request once its weights are found; a fault ends
        that request alone."""
        while self._unfitted and self._trying is None:
            try:
                if not self._go_on(self._unfitted[0]):
                    return
            except Busy:
                raise
            except RamoleError as error:
                self._fault = self._fault or error
            self._end_search()

    def _go_on(self, index: int) -> bool:
        """Submit what a request's search comes to next; True: it is over, the request queued."""
        prepared = self._asked[index]
        if not self._stopped:
            if self._fit is None:
                self._fit = self._engine.fit(prepared)
            assert self._fit is not None
            if not self._fit.done:
                step = partial(self._engine.submit_step, self._fit)
                self._trying = self._queue(index, step, self._fit.report)
                self._wake()
                return False
            prepared = self._asked[index] = self._fit.fitted
        if self._fit is not None and (report := self._fit.report) is not None:
            self._fitted[index] = report
        if not self._submit(index, prepared):
            return False
        self._wake()
        return True

    def _end_search(self) -> None:
        if self._fit is not None:
            self._fit.close()
        self._fit = None
        del self._unfitted[0]

    def _tried(self, item: Result) -> None:
        """Take the result of a step of the search."""
        self._trying, fit = None, self._fit
        if isinstance(item, PairReading) and fit is not None:
            try:
                fit.tell(item.loss)
            except RamoleError as error:
                item = error
        if isinstance(item, Exception):
            self._fault = self._fault or item
            self._end_search()
        elif isinstance(item, PairReading) and fit is not None and fit.report is not None:
            self._fitting(self._unfitted[0], fit.report)

    def _wake(self) -> None:
        if self._engine.thread is not None:
            self._engine.thread.wake()

    def _report_places(self) -> None:
        unsure = [(t, i) for t, i in self._open.items() if self._places.get(i) != 0]
        places = self._engine.scheduler.places() if unsure else {}
        for state, index in unsure:
            known, place = self._places.get(index), places.get(state, 0)
            if place != known:
                self._places[index] = place
                if known is not None or place:
                    self._waiting(index, place)
        for state, index in self._open.items():
            done = min(state.fed, state.prompt_length)
            if self._places.get(index) == 0 and self._done.get(index, -1) < done:
                self._done[index] = done
                self._reading(index, done, state.prompt_length)

    def _take(self) -> Iterator[tuple[int, Step | Generation]]:
        if self._engine.thread is None and self._news.empty():
            self._engine.step()
        try:
            state, item = self._news.get(timeout=POLL_SECONDS)
        except queue.Empty:
            return
        while True:
            if state is self._trying:
                self._tried(item)
            elif state not in self._open:
                yield from self._read(state, item)
            else:
                index = self._open[state]
                if not isinstance(item, Step):
                    del self._open[state]
                if isinstance(item, Exception):
                    self._fault, item = self._fault or item, None
                assert not isinstance(item, PairReading)
                if isinstance(item, Generation):
                    item = replace(item, fitted=self._fitted.get(index))
                    measured = state.request.effects and item.finish_reason != "cancelled"
                    if measured and state.tokens and not self._stopped:
                        item = self._hold(state, index, item)
                if item is not None:
                    yield index, item
            if self._news.empty():
                return
            state, item = self._news.get()

    def _deliver(self, state: RequestState, item: Result) -> None:
        """Take a result from the thread that runs the model."""
        self._news.put((state, item))

    def _hold(self, state: RequestState, index: int, answer: Generation) -> Generation | None:
        """Queue an answer's second readings; the answer where there are none, or they fail."""
        ended = time.perf_counter()
        try:
            reading = self._engine.read_again(self._asked[index], state, self._deliver)
        except RamoleError as error:
            return without_effects(answer, error)
        if not reading.states:
            return reading.complete(answer, ended=ended)
        self._held[reading] = index, answer, ended
        self._wake()

    def _read(self, state: RequestState, item: Result) -> Iterator[tuple[int, Generation]]:
        """Take a reading's result: the answer with effects after the last one, without where one
        failed or was cancelled."""
        reading = next((one for one in self._held if state in one.states), None)
        if reading is None:
            return  # another reading of its answer has failed
        index, answer, ended = self._held[reading]
        if isinstance(item, PairReading):
            reading.add(state, item)
            if reading.states:
                return
            answer = reading.complete(answer, ended=ended)
        else:
            for one in reading.states:
                one.cancel()
            answer = without_effects(answer, item if isinstance(item, Exception) else None)
        del self._held[reading]
        yield index, answer
