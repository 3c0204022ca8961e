"""One question from start to end, without gradio: loading, finding, streaming, ending well.

`answer` yields `Shown` pictures of a run on its way. However it ends (finished, stopped, or its
reader gone), the engine is given back and `live.run` holds what came.
"""

import math
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from ramole_core import Request

from ..charts.run import UNCOMPARED, Found, Run
from ..model.loading import loaded
from ..model.reading import Reading
from .conversation import by_the_base

if TYPE_CHECKING:
    from ramole_core import Ramole

NEXT = 3
"""How many adapters that were not taken are shown below those that were."""
WAIT = 0.4
"""Seconds between two looks at a model that is being loaded."""
STILL = "The answer is there; the bare base is still writing…"


@dataclass
class Live:
    """A run on its way; one thread fills it, others read it, and `cancelled` ends it."""

    started: float = field(default_factory=time.perf_counter)
    cancelled: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)
    run: Run | None = None
    """Set before `ended`, where there was an answer at all."""


@dataclass(frozen=True)
class Shown:
    """One picture of a run on its way."""

    note: str = ""
    found: tuple[Found, ...] = ()
    experts: tuple[str, ...] = ()
    pieces: tuple[str, ...] = ()
    shares: tuple[np.ndarray, ...] = ()
    """[k] for each piece: each adapter's share of what all contributed."""
    beside: str | None = None
    run: Run | None = None
    """The finished run; None while it is on its way."""


def answer(
    ramole: "Ramole", request: Request, live: Live, *, beside: bool, address: str = ""
) -> Generator[Shown, None, None]:
    """Pictures of the answer as it grows, the last one with the run; raises RamoleError."""
    reading = None
    try:
        for progress in loaded(ramole, live.cancelled, pause=WAIT):
            yield Shown(f"{progress}; your question is answered as soon as it is there.")
        if live.cancelled.is_set():
            return
        found = rank(ramole, request)
        yield Shown("Reading the prompt…", found=found, experts=_taken(found))
        requests = [request, _bare(request)] if beside else [request]
        reading = Reading(
            ramole,
            requests,
            session=request.owner,
            address=address,
            cancelled=live.cancelled,
            after=lambda reading: _keep(reading, live, request, found),
        )
        yield from _draw(reading, live, found=found, beside=beside)
    finally:
        if reading is None:
            live.ended.set()


def rank(ramole: "Ramole", request: Request) -> tuple[Found, ...]:
    """The pool beside this prompt: the adapters that will be taken, and the next ones; none where
    the pool is empty."""
    if not ramole.pool.cards(request.owner):
        return ()
    if request.adapters is None:
        count = {"base": 0, "selection": 1}.get(request.method, request.k)
        hits = ramole.retrieve(
            request.prompt, k=count + NEXT, exclude=request.exclude, owner=request.owner
        )
        return tuple(Found(hit.name, hit.score, i < count) for i, hit in enumerate(hits))
    everyone = max(1, len(ramole.pool.cards(request.owner)))
    hits = ramole.retrieve(request.prompt, k=everyone, owner=request.owner)
    score = {hit.name: hit.score for hit in reversed(hits)}
    pinned = [Found(name, score.get(name, float("nan")), True) for name in request.adapters]
    others = [hit for hit in hits if hit.name not in request.adapters][:NEXT]
    return (*pinned, *(Found(hit.name, hit.score, False) for hit in others))


def took(found: Sequence[Found], names: Sequence[str]) -> tuple[Found, ...]:
    """The same ranking, with the adapters marked that were really taken, these first."""
    by_name = {one.name: one for one in found}
    taken = [replace(by_name.get(n, Found(n, float("nan"), True)), taken=True) for n in names]
    return (*taken, *(replace(one, taken=False) for one in found if one.name not in names))


def _draw(
    reading: Reading, live: Live, *, found: tuple[Found, ...], beside: bool
) -> Iterator[Shown]:
    steps, names = reading.steps[0], _taken(found)
    shares: list[np.ndarray] = []
    base = None
    with closing(reading.pictures()) as pictures:
        for _ in pictures:
            count = len(steps)  # the thread may append behind it
            new = [step.shares for step in steps[len(shares) : count]]
            shares += [row for row in new if row is not None]
            if count:
                names = steps[count - 1].adapters
                found = scored(found, names, steps[count - 1].scores)
            if beside:
                base = "".join(step.text for step in reading.steps[1])
            if reading.ended.is_set() and live.run is not None:
                yield Shown(run=live.run, beside=base)
                return
            yield Shown(
                _note(reading, count),
                found=took(found, names),
                experts=names,
                pieces=tuple(step.text for step in steps[:count]),
                shares=tuple(shares),
                beside=base,
            )


def _note(reading: Reading, count: int) -> str:
    place = reading.places.get(0, 0)
    if place:
        return f"Place {place} in the queue: every row of the batch is taken."
    if not count and (how := reading.fittings.get(0)) is not None and how.step < how.steps:
        return (
            f"Finding weights on the examples: step {how.step} of {how.steps}, loss {how.loss:.3f} "
            f"so far, {how.start:.3f} at the start."
        )
    if not count:
        return "Reading the prompt…"
    return STILL if 0 in reading.answers else f"Answering… {count} tokens"


def _keep(reading: Reading, live: Live, request: Request, found: tuple[Found, ...]) -> None:
    """What came, in `live.run`; called where the engine was given back."""
    answer = reading.answers.get(0)
    if answer is not None:
        live.run = Run(
            request=request,
            answer=answer,
            pieces=tuple(step.text for step in reading.steps[0]),
            found=took(scored(found, answer.adapters, answer.scores), answer.adapters),
            beside=reading.answers.get(1),
        )
    live.ended.set()


def _bare(request: Request) -> Request:
    """The same text, and the same earlier turns, by the base alone."""
    alone = {"method": "base", "adapters": None, "weights": None, "options": None, "exclude": ()}
    alone |= {"examples": (), "mix": None}
    return by_the_base(replace(request, **alone, trace=False))


def _taken(found: Sequence[Found]) -> tuple[str, ...]:
    return tuple(one.name for one in found if one.taken)


def scored(
    found: tuple[Found, ...], taken: Sequence[str], scores: Sequence[float]
) -> tuple[Found, ...]:
    """The ranking, and those behind it that were taken: a method may take who answers loudest.
    One that was taken without being compared has no similarity."""
    names = {one.name for one in found}
    unknown = {name for name, score in zip(taken, scores, strict=True) if math.isnan(score)}
    told = [
        replace(one, score=math.nan, without=UNCOMPARED)
        if one.name in unknown and not math.isnan(one.score)
        else one
        for one in found
    ]
    behind = zip(taken, scores, strict=True)
    more = [Found(name, s, True, UNCOMPARED) for name, s in behind if name not in names]
    return (*told, *more)
