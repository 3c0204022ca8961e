"""One prompt in several ways at once, without gradio: updates of all columns as they grow."""

import secrets
import threading
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from ramole_core import Generation, Ramole, Request

from ..charts.palette import places_of
from ..charts.run import Run
from ..charts.spans import differing
from ..charts.tokens import Growing, view_of_run
from ..model.loading import loaded, loading_of
from ..model.reading import Reading, progress_of
from ..parts.asked import counted

ANSWERING = "Answering…"


@dataclass
class Comparison:
    """A comparison's requests and answers."""

    cancelled: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)
    name: str = field(default_factory=lambda: secrets.token_hex(4))
    """Name of the comparison, for the browser."""
    link: str = ""
    """The end of an address that repeats the comparison."""
    runs: list[Run | None] = field(default_factory=list)
    """The finished answers, by column."""


@dataclass(frozen=True)
class Compared:
    """A finished comparison, without events, which other processes cannot share (as on ZeroGPU)."""

    name: str
    runs: tuple[Run | None, ...]
    link: str = ""


@dataclass(frozen=True)
class ColumnsUpdate:
    """One update: a sentence, and each column's tokens."""

    note: str
    share: float | None = None
    """Of the work before the first token, 0 to 1; None once it is there."""
    views: tuple[dict[str, Any], ...] = ()


def compared(
    ramole: Ramole, requests: Sequence[Request], asked: Comparison, *, address: str = ""
) -> Generator[ColumnsUpdate, None, None]:
    """Stream updates of all answers, in one batch, the last once all have ended; raises
    RamoleError. Adapters keep letter and colour across the columns."""
    reading = None
    try:
        for progress in loaded(ramole, asked.cancelled):
            said = f"{progress}; the prompt is answered as soon as it is there."
            yield ColumnsUpdate(said, loading_of(ramole).fraction)
        if asked.cancelled.is_set():
            return
        reading = Reading(
            ramole,
            requests,
            session=requests[0].owner,
            address=address,
            cancelled=asked.cancelled,
            after=lambda reading: _keep(reading, asked),
        )
        growing = [Growing(f"{asked.name}-{n}") for n in range(len(requests))]
        with closing(reading.pictures()) as pictures:
            for _ in pictures:
                over = reading.ended.is_set()
                yield ColumnsUpdate(*_note(reading, over=over), _views(reading, growing, over=over))
    finally:
        if reading is None:
            asked.ended.set()


def _views(
    reading: Reading, growing: Sequence[Growing], *, over: bool
) -> tuple[dict[str, Any], ...]:
    views, met = [], list[str]()
    first = [step.text for step in reading.steps[0]]
    for n, drawn in enumerate(growing):
        steps = list(reading.steps[n])  # the thread may append behind it
        answer = reading.answers.get(n)
        names = steps[-1].adapters if steps else tuple(answer.adapters if answer else ())
        shares = [step.shares for step in steps if step.shares is not None]
        pieces, places = [step.text for step in steps], places_of(names, met)
        running = answer is None and not over
        view = drawn.view(pieces, shares, names, running=running, places=places)
        if answer is not None and answer.effects is not None:
            view = view_of_run(_run(answer, reading, n, tuple(met)), drawn.run)
        if over and n:
            view["differs"] = differing(pieces, first)
        views.append(view)
        met += names
    return tuple(views)


def _note(reading: Reading, *, over: bool) -> tuple[str, float | None]:
    """Return the last column's stage, and before the first token the share that is done."""
    if over:
        return "Stopped." if reading.cancelled.is_set() else "", None
    count = sum(map(len, reading.steps))
    if count and not any(reading.places.values()):
        return f"{ANSWERING} {counted(count, 'token')}", None
    every = [progress_of(reading, n) for n in range(len(reading.requests))]
    last = min(every, key=lambda one: one.share)
    return last.words, None if count else last.share


def _keep(reading: Reading, asked: Comparison) -> None:
    met: tuple[str, ...] = ()
    for n in range(len(reading.requests)):
        answer = reading.answers.get(n)
        asked.runs.append(None if answer is None else _run(answer, reading, n, met))
        met += () if answer is None else tuple(answer.adapters)
    asked.ended.set()


def _run(answer: Generation, reading: Reading, n: int, met: tuple[str, ...]) -> Run:
    """A column's answer; `met`: the adapters of the columns before it."""
    pieces = tuple(step.text for step in reading.steps[n])
    return Run(reading.requests[n], answer, pieces, beside_columns=met)
