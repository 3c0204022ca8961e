"""A batch on its way, as plain data: one thread asks and fills it in, others look at it.

`watched` gives a moment to draw every so often, until every row has ended.
"""

import logging
import secrets
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ramole_core import Generation, RamoleError, Step

from .batch_rows import batch_run
from .errors import UNEXPECTED
from .loading import loading_of

if TYPE_CHECKING:
    from ramole_core import Ramole

log = logging.getLogger(__name__)
PAUSE = 0.3
"""Seconds between two looks."""
SPEED_SECONDS = 4.0
"""The speed now is that of so many seconds."""
STATES = ("waits", "runs", "answered", "refused", "stopped")


@dataclass
class RowRun:
    """One row of the file as it stands."""

    row: Any
    """The `BatchRow`, or the `BadRow` that it is."""
    state: str = "waits"
    experts: tuple[str, ...] = ()
    """Its adapters, as soon as they are known."""
    scores: tuple[float, ...] = ()
    """Their similarities; nan where named."""
    gate: np.ndarray | None = None
    """[k], the sum over its tokens of the gate's mean over layers and modules."""
    gated: int = 0
    """Tokens in that sum."""
    answer: Generation | None = None
    sentence: str = ""
    """Why it was refused."""

    @property
    def prompt(self) -> str:
        """What it asks; a bad row's beginning."""
        request = getattr(self.row, "request", None)
        return request.prompt if request else self.row.text

    @property
    def weights(self) -> list[float] | None:
        """The mean weight of each adapter so far; None before the first token."""
        if self.gate is None or len(self.gate) != len(self.experts):
            return None
        return [float(weight) for weight in self.gate / self.gated]


@dataclass
class BatchRun:
    """All rows of a run, in the order of the file."""

    items: list[RowRun]
    owner: str | None = None
    name: str = field(default_factory=lambda: secrets.token_hex(4))
    cancelled: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)
    error: str = ""
    """One sentence, where the whole run failed."""
    note: str = ""
    """What it waits for, before its first row runs."""
    place: int = 0
    """Place of its next row in everybody's queue; 0 where one runs."""
    tokens: int = 0
    began: float = 0.0
    seconds: float = 0.0
    """From the first call of the engine to the end."""
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=4096))
    """When the last tokens came."""

    def count(self) -> Counter[str]:
        """How many rows are in which state."""
        return Counter(item.state for item in self.items)

    @property
    def elapsed(self) -> float:
        """Seconds since the engine was first asked."""
        if self.ended.is_set() or not self.began:
            return self.seconds
        return time.perf_counter() - self.began

    @property
    def speed(self) -> float:
        """Tokens per second just now; of the whole run once it has ended."""
        if self.ended.is_set():
            return self.tokens / self.seconds if self.seconds and self.tokens else 0.0
        now, seconds = time.perf_counter(), min(SPEED_SECONDS, self.elapsed)
        fresh = sum(now - moment <= seconds for moment in list(self.recent))
        return fresh / seconds if seconds else 0.0


def run_of(batch: Any, *, owner: str | None) -> BatchRun:
    """A run of all rows of a file; the bad ones are refused from the start."""
    traced = [replace(row, request=replace(row.request, trace=True)) for row in batch.rows]
    items = [RowRun(row) for row in traced]
    items += [RowRun(row, state="refused", sentence=row.sentence) for row in batch.bad]
    return BatchRun(sorted(items, key=lambda item: item.row.index), owner)


def watched(ramole: "Ramole", run: BatchRun) -> Iterator[None]:
    """Run it; a turn for each look at it. A reader that leaves ends it."""
    try:
        yield from _loaded(ramole, run)
        if not run.cancelled.is_set():
            run.note = "Reading the prompts…"
            run.began = time.perf_counter()
            threading.Thread(target=_ask, args=[ramole, run], name="batch", daemon=True).start()
            while not run.ended.wait(PAUSE):
                yield
    finally:
        run.cancelled.set()
        if not run.began:
            _end(run)


def _loaded(ramole: "Ramole", run: BatchRun) -> Iterator[None]:
    loading = loading_of(ramole)
    while not loading.ready and not run.cancelled.is_set():
        loading.start()
        run.note = (
            f"The model is loading ({loading.stage}, {loading.fraction:.0%}); "
            "the rows run as soon as it is there."
        )
        yield
        loading.ended.wait(PAUSE)
        if loading.error:
            raise RamoleError(loading.error)


def _ask(ramole: "Ramole", run: BatchRun) -> None:
    rows = {item.row.index: item for item in run.items if item.state == "waits"}
    try:
        events = batch_run.run_rows(
            ramole,
            [item.row for item in rows.values()],
            cancelled=run.cancelled.is_set,
            session=run.owner or "",
            waiting=lambda row, place: _placed(run, place),
        )
        for row, item in events:
            _take(ramole, run, rows[row.index], item)
    except RamoleError as error:
        run.error = str(error)
    except Exception:
        log.exception("A batch failed.")
        run.error = UNEXPECTED
    finally:
        run.seconds = time.perf_counter() - run.began
        _end(run)


def _end(run: BatchRun) -> None:
    for item in run.items:
        if item.state in ("waits", "runs"):
            item.state = "stopped"
    run.ended.set()


def _placed(run: BatchRun, place: int) -> None:
    run.place = 0 if run.count()["runs"] or not place else min(place, run.place or place)


def _take(ramole: "Ramole", run: BatchRun, item: RowRun, came: object) -> None:
    run.place, run.note = 0, ""
    if isinstance(came, Step):
        if item.state == "waits":
            item.state = "runs"
            _find(ramole, item, came)
        run.tokens += 1
        run.recent.append(time.perf_counter())
        if came.weights is not None and came.weights.size:
            gate = came.weights.mean((0, 1), dtype=np.float64)
            same = item.gate is not None and item.gate.shape == gate.shape
            item.gated, item.gate = (item.gated + 1, item.gate + gate) if same else (1, gate)
    elif isinstance(came, Generation):
        item.state = "stopped" if came.finish_reason == "cancelled" else "answered"
        item.experts, item.scores = tuple(came.adapters), tuple(came.scores)
        item.answer = replace(came, trace=None)
    else:
        item.state, item.sentence = "refused", str(came)


def _find(ramole: "Ramole", item: RowRun, step: Step) -> None:
    """The adapters of a row that has begun: those named, or those that retrieval finds again."""
    request = item.row.request
    k = 0 if step.weights is None else step.weights.shape[-1]
    if request.adapters is not None:
        if len(request.adapters) == k:
            item.experts = tuple(request.adapters)
            item.scores = (float("nan"),) * k
    elif k:
        hits = ramole.retrieve(request.prompt, k, request.exclude, request.owner)
        item.experts = tuple(hit.name for hit in hits)
        item.scores = tuple(hit.score for hit in hits)
