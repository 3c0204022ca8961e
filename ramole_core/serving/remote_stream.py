"""The stream of one caller's requests over many engines, continued where one is lost.

When an engine is lost in the midst of an answer, nothing is lost: the request goes to another one
with the tokens that were streamed already. That one reads them as it reads a prompt, draws as many
random numbers as they cost, and sends the last of them again, which is dropped here; so no reader
sees a token twice, or another one.
"""

import queue
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, field, replace
from typing import Unpack

from ramole_core.engine.prompt import Prepared, leave_out
from ramole_core.engine.request_stream import Caller
from ramole_core.errors import Busy, RamoleError
from ramole_core.request import Fitting, Generation, Step
from ramole_core.serving.fleet import EngineLost, Fleet, Item, NoEngine
from ramole_core.serving.placing import Placing
from ramole_core.serving.wire import QueuePlace, job_of


@dataclass(eq=False)
class RemoteRequest:
    """One request at an engine."""

    index: int
    prepared: Prepared
    held: ExitStack
    """Holds its adapters in the store."""
    engine: str = ""
    cancel: Callable[[], None] = lambda: None
    streamed_ids: list[int] = field(default_factory=list)
    """Tokens that its reader has received."""
    text: str = ""
    """Text of these tokens."""
    attempt: int = 0
    """Number of times it was sent."""
    drop: bool = False
    """Whether the next token is one that its reader has received."""
    lost: set[str] = field(default_factory=set)
    """Engines that were lost with it."""
    began: float = field(default_factory=time.monotonic)
    first: float | None = None
    """When its first token came."""
    moves: int = 0
    """Engines that were lost after it had begun there."""
    fruitless: int = 0
    """Of these, since its last token."""
    fitted: Fitting | None = None
    retry_at: float | None = None
    """When it is sent again; None: it is at an engine."""
    waits: float | None = None
    """Since when there is no engine; None: there is one."""
    place: int = -1

    def cancelled(self) -> Generation:
        """The answer of a request cancelled at no engine: the streamed tokens."""
        prepared, now = leave_out(self.prepared), time.monotonic()
        return Generation(
            text=self.text,
            adapters=[c.name for c in prepared.candidates],
            scores=[c.score for c in prepared.candidates],
            trace=None,
            finish_reason="cancelled",
            prompt_tokens=len(prepared.prompt.ids),
            new_tokens=len(self.streamed_ids),
            seconds=now - self.began,
            first_token_seconds=self._first_by(now) - self.began,
            fitted=self.fitted,
        )

    def whole(self, answer: Generation) -> Generation:
        """The answer over all engines: the last one's, with the page's times where there were
        more."""
        now = time.monotonic()
        if self.fitted is not None:
            answer = replace(answer, fitted=answer.fitted or self.fitted)
        if not self.moves:
            return answer
        return replace(
            answer,
            seconds=now - self.began,
            first_token_seconds=self._first_by(now) - self.began,
            extra={**answer.extra, "moves": float(self.moves)},
        )

    def _first_by(self, now: float) -> float:
        return now if self.first is None else self.first


POLL_SECONDS = 0.05
"""Interval at which a caller's cancellation is polled while no result comes."""
MAX_WAIT_SECONDS = 300.0
"""Seconds for which a request waits for an engine where none is there."""
MAX_LOST = 8
"""Engines that a request may lose without a token in between: it may be what ends them."""
RETRY_SECONDS = 0.5
"""Seconds after which a crowded fleet is tried again."""


class RemoteStream:
    """One caller's requests at many engines."""

    def __init__(
        self,
        fleet: Fleet,
        placing: Placing,
        asked: Sequence[tuple[Prepared, Fitting | None]],
        *,
        hold: Callable[[Sequence[str]], AbstractContextManager[None]],
        found: Callable[[Prepared, Fitting], Prepared],
        most: int,
        page: str,
        **caller: Unpack[Caller],
    ):
        """`asked`: each request, with the search that its weights are known from; `hold` keeps
        adapters in the store; `found` remembers what a search came to, and gives the request with
        those weights; `most` requests are sent at once; `page` is the caller's id."""
        self._fleet, self._placing, self._asked = fleet, placing, list(asked)
        self._hold, self._found, self._most = hold, found, most
        self._session, self._address = caller.get("session", ""), caller.get("address", "")
        self._cancelled, self._waiting = caller["cancelled"], caller["waiting"]
        self._fitting = caller.get("fitting", lambda index, how: None)
        self._page = page
        self.moves = 0
        """Number of moves of a request to another engine."""
        self._news = queue.SimpleQueue[tuple[RemoteRequest, int, Sequence[Item]]]()
        self._open: list[RemoteRequest] = []
        self._next = 0
        self._stopped = False
        self._fault: Exception | None = None

    def __iter__(self) -> Iterator[tuple[int, Step | Generation]]:
        """Every token and answer, with its request's index; an error is raised once all ended."""
        try:
            while self._open or self._next < len(self._asked):
                if not self._stopped and self._cancelled():
                    self._stop()
                self._feed()
                yield from self._take()
            if self._fault is not None:
                raise self._fault
        finally:
            for one in list(self._open):
                one.cancel()
                self._leave(one)

    def _stop(self) -> None:
        self._stopped = True
        for one in self._open:
            one.cancel()

    def _feed(self) -> None:
        while self._next < len(self._asked) and len(self._open) < self._most:
            prepared, fitted = self._asked[self._next]
            one = RemoteRequest(self._next, prepared, ExitStack(), fitted=fitted)
            self._next += 1
            self._open.append(one)
            if self._stopped:
                continue
            contents = {c.checksum for turn in prepared.turns for c in turn.candidates}
            one.held.enter_context(self._hold(sorted(contents)))
            self._send(one)
        for one in list(self._open) if not self._stopped else ():
            if one.retry_at is not None and one.retry_at <= time.monotonic():
                self._send(one)

    def _send(self, one: RemoteRequest) -> None:
        keys = self._fleet.keys()
        now = time.monotonic()
        one.retry_at = None
        if not keys:
            one.waits = now if one.waits is None else one.waits
            if now - one.waits > MAX_WAIT_SECONDS:
                self._fail(one, NoEngine(MAX_WAIT_SECONDS))
            one.retry_at = now + RETRY_SECONDS
            return
        one.waits = None
        candidates = one.prepared.candidates
        near = candidates[0].checksum if candidates else None
        one.engine = self._placing.begin(near, keys, lost=one.lost)
        one.attempt += 1
        one.drop = bool(one.streamed_ids)
        attempt = one.attempt
        job = replace(
            job_of(one.prepared),
            streamed_ids=tuple(one.streamed_ids),
            session=self._session or one.prepared.request.owner or "",
            address=self._address,
            page=self._page,
        )
        one.cancel = self._fleet.answer(
            one.engine, job, lambda items: self._news.put((one, attempt, items))
        )

    def _take(self) -> Iterator[tuple[int, Step | Generation]]:
        if self._stopped:
            yield from self._end_unsent()
        seconds = POLL_SECONDS
        with suppress(queue.Empty):
            while True:
                one, attempt, items = self._news.get(timeout=seconds)
                seconds = 0.0  # the others that are there already
                if attempt == one.attempt and one in self._open:
                    for item in items:
                        if (heard := self._receive(one, item)) is not None:
                            yield one.index, heard

    def _end_unsent(self) -> Iterator[tuple[int, Generation]]:
        """Cancel the requests that are at no engine."""
        for one in [one for one in self._open if not one.attempt or one.retry_at is not None]:
            self._leave(one)
            yield one.index, one.cancelled()

    def _receive(self, one: RemoteRequest, item: Item) -> Step | Generation | None:
        if isinstance(item, QueuePlace):
            if one.place != item.place and (one.place >= 0 or item.place):
                self._waiting(one.index, item.place)
            one.place = item.place
        elif isinstance(item, Fitting):
            one.fitted = item
            self._fitting(one.index, item)
        elif isinstance(item, Step):
            return self._step(one, item)
        elif isinstance(item, Generation):
            self._leave(one)
            return one.whole(item)
        elif isinstance(item, EngineLost):
            self._move(one)
        elif isinstance(item, Busy):
            self._crowded(one, item)
        else:
            self._fail(one, item)
        return None

    def _step(self, one: RemoteRequest, step: Step) -> Step | None:
        self._keep_weights(one)
        if one.drop:
            one.drop = False
            if step.token != (last := one.streamed_ids[-1]):
                raise RuntimeError(f"an engine went on with {step.token}, not {last}")
            return None
        one.first = time.monotonic() if one.first is None else one.first
        one.streamed_ids.append(step.token)
        one.text += step.text
        one.fruitless = 0
        return step

    def _keep_weights(self, one: RemoteRequest) -> None:
        """Keep the weights found, so that another engine need not search again."""
        if one.fitted is not None and one.prepared.turns[-1].request.examples:
            one.prepared = self._found(one.prepared, one.fitted)

    def _move(self, one: RemoteRequest) -> None:
        one.lost.add(one.engine)
        self._free(one)
        one.moves += 1
        self.moves += 1
        one.fruitless += 1
        if one.fruitless > MAX_LOST:
            told = (
                f"{one.fruitless} engines ended while they had this request, and none came to its "
                "next token; ask for something else, and see why they ended."
            )
            self._fail(one, RamoleError(told))
        elif self._stopped:
            one.retry_at = time.monotonic()
        else:
            self._send(one)

    def _crowded(self, one: RemoteRequest, busy: Busy) -> None:
        """Handle a full engine: the caller's first request raises Busy, others wait."""
        self._free(one)
        if one.index == 0 and not one.streamed_ids and len(self._open) == 1:
            self._leave(one)
            raise busy
        one.retry_at = time.monotonic() + RETRY_SECONDS

    def _fail(self, one: RemoteRequest, error: Exception) -> None:
        self._leave(one)
        self._fault = self._fault or error

    def _leave(self, one: RemoteRequest) -> None:
        if one in self._open:
            self._open.remove(one)
        self._free(one)
        one.held.close()

    def _free(self, one: RemoteRequest) -> None:
        """It is at no engine."""
        if one.engine:
            self._placing.end(one.engine)
        one.engine, one.cancel = "", lambda: None
