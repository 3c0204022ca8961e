"""The running rows of a batch, as plain data: one thread fills it in, others read it.

`watched` yields whenever an update is due, until every row has ended.
"""

import secrets
import threading
import time
from collections import Counter, deque
from collections.abc import Generator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ramole_core import (
    BadRow,
    Batch,
    BatchRow,
    Generation,
    Ramole,
    RamoleError,
    Step,
    effect_shares,
    mean_weights,
    run_rows,
)

from ..model.loading import loaded
from ..model.reading import PACE
from ..parts.errors import sentence_of
from ..watch.events import answered, refused

MIN_PAUSE = 0.3
"""Least seconds between two updates."""
DRAWING_SHARE = 0.1
"""Largest share of the time for updates: a long list is drawn less often."""
MAX_PAUSE_SECONDS = 5.0
"""Most seconds between two updates."""
SPEED_SECONDS = 4.0
"""Seconds over which the current speed is measured."""
EVENTS = ("cancelled", "ended")


@dataclass
class RowRun:
    """One row of the file and its state."""

    row: BatchRow | BadRow
    state: str = "waits"
    """`waits`, `runs`, `answered`, `refused` or `stopped`."""
    experts: tuple[str, ...] = ()
    """Its adapters, as soon as they are known."""
    scores: tuple[float, ...] = ()
    """Their similarities; nan where there is none."""
    pieces: list[str] = field(default_factory=list)
    """The text of each token so far."""
    told: dict[str, np.ndarray] = field(default_factory=dict)
    """Of each adapter, the sums over its tokens of its share of the contributions, and of its mean
    weight in the modules that it has."""
    traced: int = 0
    """Tokens in those sums."""
    place: int = 0
    """Place in the server's queue; 0: not in it."""
    answer: Generation | None = None
    sentence: str = ""
    """Why it was refused, or could not be run."""

    @property
    def prompt(self) -> str:
        """The prompt; a bad row's beginning."""
        return self.row.text if isinstance(self.row, BadRow) else self.row.request.prompt

    @property
    def text(self) -> str:
        """The answer, as far as it came."""
        return "".join(self.pieces) if self.answer is None else self.answer.text

    @property
    def shares(self) -> list[float] | None:
        """Each adapter's share of what made the answer likelier, where its row requests effects;
        else of what all contributed so far, None before the first token."""
        if self.answer is not None and self.answer.effects is not None:
            return [float(share) for share in effect_shares(self.answer.effects).mean(0)]
        return self._mean(0)

    @property
    def weights(self) -> list[float] | None:
        """The mean weight of each adapter so far; None before the first token."""
        return self._mean(1)

    def _mean(self, which: int) -> list[float] | None:
        if not self.traced:
            return None
        told = [self.told.get(name, np.zeros(2))[which] for name in self.experts]
        return [float(value) for value in np.array(told) / self.traced]

    @property
    def done(self) -> float:
        """The share done, 0 to 1; a running row counts by its tokens, and never as done."""
        if self.state != "runs" or isinstance(self.row, BadRow):
            return float(self.state != "waits")
        return min(len(self.pieces) / self.row.request.max_new_tokens, 0.95)


@dataclass
class BatchRun:
    """All rows of a run, in the order of the file."""

    items: list[RowRun]
    owner: str | None = None
    address: str = ""
    """Network address of its owner; empty: unknown."""
    name: str = field(default_factory=lambda: secrets.token_hex(4))
    cancelled: threading.Event = field(default_factory=threading.Event)
    """Set it to end all rows at once; what they have is kept."""
    ended: threading.Event = field(default_factory=threading.Event)
    error: str = ""
    """One sentence, where the whole run failed."""
    note: str = "Reading the rows…"
    """Reason of the wait before its first row runs."""
    tokens: int = 0
    began: float | None = None
    seconds: float = 0.0
    """From the first call of the engine to the end."""
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=4096))
    """Times of the last tokens."""

    def __getstate__(self) -> dict[str, Any]:
        """Without its events, which no other process can share (ZeroGPU runs handlers in one)."""
        return {name: part for name, part in vars(self).items() if name not in EVENTS}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a run that has ended."""
        vars(self).update(state)
        for name in EVENTS:
            setattr(self, name, threading.Event())
            getattr(self, name).set()

    def count(self) -> Counter[str]:
        """How many rows are in which state."""
        return Counter(item.state for item in self.items)

    @property
    def weight(self) -> int:
        """About how many bytes it takes."""
        return sum(2000 + 3 * len(item.prompt) + 60 * len(item.pieces) for item in self.items)

    @property
    def place(self) -> int:
        """Place of the next row in the server's queue; 0 where one is read or answered already."""
        if any(item.state == "runs" for item in self.items):
            return 0
        return next((item.place for item in self.items if item.state == "waits"), 0)

    @property
    def elapsed(self) -> float:
        """Seconds since the first call of the engine."""
        if self.ended.is_set() or self.began is None:
            return self.seconds
        return time.perf_counter() - self.began

    @property
    def speed(self) -> float:
        """Current tokens per second; of the whole run once it has ended."""
        if self.ended.is_set():
            return self.tokens / self.seconds if self.seconds else 0.0
        now, seconds = time.perf_counter(), min(SPEED_SECONDS, self.elapsed)
        fresh = sum(now - moment <= seconds for moment in list(self.recent))
        return fresh / seconds if seconds else 0.0


def run_of(batch: Batch, *, owner: str | None, address: str = "") -> BatchRun:
    """A run of all rows of a file; the bad ones are refused from the start."""
    items = [RowRun(replace(row, request=replace(row.request, trace=True))) for row in batch.rows]
    items += [RowRun(row, state="refused", sentence=row.sentence) for row in batch.bad]
    return BatchRun(sorted(items, key=lambda item: item.row.index), owner, address)


def watched(ramole: Ramole, run: BatchRun) -> Generator[None, None, None]:
    """Run it; yields for each update, last after its end. Closing the generator cancels it."""
    try:
        try:
            for progress in loaded(ramole, run.cancelled, pause=MIN_PAUSE):
                run.note = f"{progress}; the rows run as soon as it is there."
                yield
        except RamoleError as error:
            run.error = sentence_of(error)
        if not run.cancelled.is_set() and not run.error:
            run.note = "Finding adapters and reading the prompts…"
            run.began = time.perf_counter()
            threading.Thread(target=_ask, args=[ramole, run], name="batch", daemon=True).start()
            with PACE.stream() as pace:
                pause = MIN_PAUSE
                while not run.ended.wait(pause):
                    looked = time.perf_counter()
                    yield
                    spent = time.perf_counter() - looked
                    pause = min(max(MIN_PAUSE, pace(), spent / DRAWING_SHARE), MAX_PAUSE_SECONDS)
    finally:
        run.cancelled.set()
        if run.began is None:
            _end(run)
    yield


def _ask(ramole: Ramole, run: BatchRun) -> None:
    rows = {item.row.index: item for item in run.items if isinstance(item.row, BatchRow)}
    events = run_rows(
        ramole,
        [item.row for item in rows.values() if isinstance(item.row, BatchRow)],
        cancelled=run.cancelled.is_set,
        session=run.owner or "",
        address=run.address,
        waiting=lambda row, place: setattr(rows[row.index], "place", place),
        again=lambda row: _begin_again(run, rows[row.index]),
    )
    try:
        for row, came in events:
            _take(run, rows[row.index], came)
    except Exception as error:
        run.error = sentence_of(error)
    finally:
        run.seconds = run.elapsed
        _end(run)


def _begin_again(run: BatchRun, item: RowRun) -> None:
    """Drop the tokens of a row that restarts."""
    run.tokens -= len(item.pieces)
    item.state, item.pieces, item.told, item.traced = "waits", [], {}, 0


def _end(run: BatchRun) -> None:
    for item in run.items:
        if item.state in ("waits", "runs"):
            item.state, item.sentence = "stopped", run.error
    run.ended.set()


def _take(run: BatchRun, item: RowRun, came: object) -> None:
    run.note = ""
    if isinstance(came, Step):
        if item.state == "waits":
            item.state = "runs"
            item.experts, item.scores = came.adapters, came.scores
        run.tokens += 1
        run.recent.append(time.perf_counter())
        item.pieces.append(came.text)
        if came.weights is not None and came.weights.size:
            present = came.weights != 0 if came.present is None else came.present
            weights = mean_weights(came.weights, present)
            pairs = np.array([came.shares, weights], np.float64).T
            item.traced += 1
            for name, pair in zip(came.adapters, pairs, strict=True):
                item.told[name] = item.told.get(name, 0) + pair
    elif isinstance(came, Generation):
        item.experts, item.scores = tuple(came.adapters), tuple(came.scores)
        parts = tuple(replace(part, trace=None) for part in came.parts)
        item.answer = replace(came, trace=None, parts=parts)
        item.state = "stopped" if came.finish_reason == "cancelled" else "answered"
        if isinstance(item.row, BatchRow):
            answered(item.row.request, came)
    elif isinstance(came, RamoleError):
        refused(came)
        item.state, item.sentence = "refused", str(came)
