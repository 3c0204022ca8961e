"""One call of `stream_batch`, read in a thread of its own.

The model's rows never wait for an update to be drawn, and the drawing thread can react at any time:
to show a place in the queue, to stop, or to detect that the reader has gone.
"""

import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ramole_core import Fitting, Generation, Ramole, Request, Selection, Step

from ..watch.events import answered, refused

HEARTBEAT_SECONDS = 2.0
"""Seconds after which an update is sent without news: it shows Gradio whether the reader is still
connected."""
STREAM_SECONDS = 0.05
"""Seconds between two updates of a stream, for each running stream."""
MAX_PAUSE_SECONDS = 1.5
"""Most seconds between two updates, so that growth stays visible."""
FINDING = "Finding adapters…"
STEPS = 3
"""Before the first token: find the adapters, read them, read the prompt."""


class Pace:
    """The pace of drawing streams: the more there are, the fewer updates of each; thread-safe.

    A picture costs the page's process about 1 ms of a core that the model needs too, so all streams
    together get about as many pictures a second as one alone.
    """

    def __init__(self):
        self._streams = 0
        self._lock = threading.Lock()

    @contextmanager
    def stream(self) -> Iterator[Callable[[], float]]:
        """Count a stream inside the block; yields a function for its current pause in seconds."""
        with self._lock:
            self._streams += 1
        try:
            yield self.pause
        finally:
            with self._lock:
                self._streams -= 1

    def pause(self) -> float:
        """Seconds between two updates of a stream."""
        return min(STREAM_SECONDS * max(self._streams, 1), MAX_PAUSE_SECONDS)


PACE = Pace()
"""Of this process: page and API share the core."""


@dataclass(frozen=True)
class Progress:
    """How much of the work before a first token is done."""

    words: str
    share: float
    """0 to 1, counted in steps, and in the last one in tokens of the prompt."""


class Reading:
    """A stream read by a thread, which fills the fields; it starts at once."""

    def __init__(
        self,
        ramole: Ramole,
        requests: Sequence[Request],
        *,
        session: str | None,
        address: str = "",
        cancelled: threading.Event | None = None,
        begun: Callable[[], None] = lambda: None,
        after: "Callable[[Reading], None]" = lambda reading: None,
    ):
        """Called in the thread: `begun` at the first token, `after` once the engine is given back,
        before `ended` is set."""
        self.requests = tuple(requests)
        self.steps: list[list[Step]] = [[] for _ in requests]
        """Tokens of each request so far."""
        self.answers: dict[int, Generation] = {}
        """By the request's index."""
        self.selections: dict[int, Selection] = {}
        """The adapters of each request, as soon as they are chosen, by its index."""
        self.places: dict[int, int] = {}
        """In the queue, by the request's index: 1 is next, 0 runs; missing where it is unknown."""
        self.fittings: dict[int, Fitting] = {}
        """Progress of the search for weights, by the request's index, where there is one."""
        self.read: dict[int, tuple[int, int]] = {}
        """How many tokens of its prompt are read and how many it has, by the request's index, once
        its adapters are read."""
        self.cancelled = cancelled or threading.Event()
        """Set it to end all of them at once."""
        self.ended = threading.Event()
        self.error: BaseException | None = None
        """Error of `stream_batch`."""
        self._fresh = threading.Event()
        self._call = (ramole, session or "", address, begun, after)
        threading.Thread(target=self._run, name="reading", daemon=True).start()

    def pictures(self) -> Generator[None, None, None]:
        """Yield whenever an update is due, and once after the end.

        Raises what `stream_batch` raised. Leaving it before the end cancels what still runs.
        """
        try:
            with PACE.stream() as pause:
                over = False
                while not over:
                    self._fresh.wait(HEARTBEAT_SECONDS)
                    self._fresh.clear()
                    over = self.ended.is_set()
                    if over and self.error is not None:
                        raise self.error
                    yield
                    self.ended.wait(pause())
        finally:
            if not self.ended.is_set():
                self.cancelled.set()

    def _run(self) -> None:
        ramole, session, address, begun, after = self._call
        requests = list(self.requests)
        first, searches = True, any(one.examples for one in requests)
        try:
            stream = ramole.stream_batch(
                requests,
                cancelled=self.cancelled.is_set,
                session=session,
                address=address,
                waiting=self._noting(self.places),
                reading=self._noting(self.read),
                selected=self._noting(self.selections),
                **({"fitting": self._noting(self.fittings)} if searches else {}),
            )
            for index, item in stream:
                if isinstance(item, Generation):
                    self.answers[index] = item
                    answered(requests[index], item)
                else:
                    self.steps[index].append(item)
                    if first:
                        first = False
                        begun()
                self._fresh.set()
        except BaseException as error:
            self.error = error
            refused(error)
        finally:
            try:
                after(self)
            finally:
                self.ended.set()
                self._fresh.set()

    def _noting(self, where: dict) -> Callable[..., None]:
        """Return a function that stores a value of a request, by its index."""

        def note(index: int, first: Any, *more: Any) -> None:
            where[index] = (first, *more) if more else first
            self._fresh.set()

        return note


def progress_of(reading: Reading, index: int) -> Progress:
    """The work that is done for one request, before its first token."""
    selection, place = reading.selections.get(index), reading.places.get(index)
    if selection is None:
        return Progress(FINDING, 0)
    count = len(selection.adapters)
    found = (1 if count else 2) / STEPS
    if place:
        return Progress(f"Place {place} in the queue: every row of the batch is taken.", found)
    if (how := reading.fittings.get(index)) is not None and how.step < how.steps:
        words = (
            f"Finding weights on the examples: step {how.step} of {how.steps}, loss {how.loss:.3f} "
            f"so far, {how.start:.3f} at the start."
        )
        return Progress(words, found + how.step / how.steps / STEPS)
    if index not in reading.read:
        adapters = f"{count} adapter{'s' * (count > 1)} and " if count else ""
        return Progress(f"Reading {adapters}the prompt…", found)
    done, of = reading.read[index]
    share = (2 + done / max(of, 1)) / STEPS
    if done < of:
        return Progress(f"Reading the prompt: {done:,} of {of:,} tokens…", share)
    return Progress(f"The prompt is read, {of:,} tokens; the first token of the answer…", share)
