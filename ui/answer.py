"""Answering one question, without gradio: wait for the model, find, stream, and end well.

`answer` yields `Shown` pictures of a run on its way. However it ends (finished, stopped, or its
reader gone), the engine is given back and `live.run` holds what came.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ramole_core import Generation, RamoleError, Request, Step

from .loading import loading_of
from .run import Found, Live, Run

if TYPE_CHECKING:
    from ramole_core import Ramole

NEXT = 3
"""How many adapters that were not taken are shown below those that were."""
STILL = "The answer is there; the bare base is still writing…"
PAUSE = 0.06
"""Seconds between two pictures of a stream."""


@dataclass(frozen=True)
class Shown:
    """One picture of a run on its way."""

    note: str = ""
    found: tuple[Found, ...] = ()
    experts: tuple[str, ...] = ()
    pieces: tuple[str, ...] = ()
    weights: tuple[np.ndarray, ...] = ()
    """[k] for each piece: the gate's mean over layers and modules."""
    beside: str | None = None
    run: Run | None = None
    """The finished run; None while it is on its way."""


def answer(ramole: "Ramole", request: Request, live: Live, *, beside: bool) -> Iterator[Shown]:
    """Pictures of the answer as it grows, the last one with the run; raises RamoleError."""
    try:
        yield from _wait(ramole, live)
        if live.cancelled.is_set():
            return
        found = rank(ramole, request)
        yield Shown("Reading the prompt…", found=found, experts=_taken(found))
        yield from _stream(ramole, request, live, found=found, beside=beside)
    finally:
        live.ended.set()


def rank(ramole: "Ramole", request: Request) -> tuple[Found, ...]:
    """The pool beside this prompt: the adapters that will be taken, and the next ones."""
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


def _wait(ramole: "Ramole", live: Live) -> Iterator[Shown]:
    loading = loading_of(ramole)
    while not loading.ready and not live.cancelled.is_set():
        loading.start()
        yield Shown(
            f"The model is loading ({loading.stage}, {loading.fraction:.0%}); "
            "your question is answered as soon as it is there."
        )
        loading.ended.wait(0.4)
        if loading.error:
            raise RamoleError(loading.error)


def _stream(
    ramole: "Ramole", request: Request, live: Live, *, found: tuple[Found, ...], beside: bool
) -> Iterator[Shown]:
    requests = [request, _bare(request)] if beside else [request]
    stream = ramole.stream_batch(requests, cancelled=live.cancelled.is_set)
    answers: dict[int, Generation] = {}
    pieces: list[str] = []
    weights: list[np.ndarray] = []
    base, names, drawn = "", _taken(found), 0.0
    try:
        for index, item in stream:
            if isinstance(item, Generation):
                answers[index] = item
            elif index == 0:
                pieces.append(item.text)
                if item.weights is not None:
                    weights.append(item.weights.mean((0, 1), dtype=np.float32))
                    names = _first(names, found, item)
            else:
                base += item.text
            if time.perf_counter() - drawn > PAUSE and pieces:
                drawn = time.perf_counter()
                yield Shown(
                    STILL if 0 in answers else f"Answering… {len(pieces)} tokens",
                    found=took(found, names),
                    experts=names,
                    pieces=tuple(pieces),
                    weights=tuple(weights),
                    beside=base if beside else None,
                )
    finally:
        if 0 not in answers:  # the reader has gone: end the run, and keep what came
            live.cancelled.set()
            answers.update((i, item) for i, item in stream if isinstance(item, Generation))
        if 0 in answers:
            live.run = Run(
                request=request,
                answer=answers[0],
                pieces=tuple(pieces),
                found=took(found, answers[0].adapters),
                beside=answers.get(1),
            )
    if live.run is not None:
        yield Shown(run=live.run, beside=base if beside else None)


def _bare(request: Request) -> Request:
    return replace(request, method="base", adapters=None, weights=None, exclude=(), trace=False)


def _taken(found: Sequence[Found]) -> tuple[str, ...]:
    return tuple(one.name for one in found if one.taken)


def _first(names: tuple[str, ...], found: Sequence[Found], step: Step) -> tuple[str, ...]:
    """The experts of a step: as many as it has weights, the most similar ones."""
    k = 0 if step.weights is None else step.weights.shape[-1]
    if k == len(names):
        return names
    if k < len(names):
        best = sorted((one for one in found if one.taken), key=lambda one: -one.score)
        return tuple(one.name for one in best[:k])
    return tuple(one.name for one in found[:k])
