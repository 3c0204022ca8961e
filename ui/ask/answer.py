"""Answer one prompt, without gradio: loading, selection, streaming, the end.

`answer` yields an `AnswerUpdate` at a time. However it ends (finished, stopped, or
its reader gone), the engine is given back and `live.run` holds what came.
"""

import secrets
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from math import isnan

import numpy as np

from ramole_core import Hit, Ramole, RamoleError, Request, Selection, Step

from ..charts.run import NAMED, UNCOMPARED, FoundAdapter, Run
from ..model.loading import loaded, loading_of
from ..model.reading import FINDING, Reading, progress_of
from ..parts.asked import counted
from ..parts.markup import description_of

ABOUT = 90
"""Characters of a card's description beside a name."""
MAX_LEFT_OUT = 3
"""Adapters that are shown below those that were selected."""
STILL = "The answer is there; the bare base is still writing…"
MEASURING = "The answer is there; measuring what each adapter changed…"


@dataclass
class Live:
    """A running answer; one thread fills it, others read it, and `cancelled` ends it."""

    name: str = field(default_factory=lambda: secrets.token_hex(4))
    """Name of its run, for the browser."""
    cancelled: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)
    found: tuple[FoundAdapter, ...] | None = None
    """Its adapters and the nearest others, once they are drawn."""
    run: Run | None = None
    """Set before `ended`, where there was an answer at all."""
    earlier: tuple[Run, ...] = ()
    """Of a prompt that was answered part by part: the parts before the last one, which is `run`."""


@dataclass(frozen=True)
class AnswerUpdate:
    """One update of a running answer."""

    note: str = ""
    share: float | None = None
    """Of the work before the first token, 0 to 1; None once it is there."""
    found: tuple[FoundAdapter, ...] = ()
    experts: tuple[str, ...] = ()
    pieces: tuple[str, ...] = ()
    shares: tuple[np.ndarray, ...] = ()
    """[k] for each piece: each adapter's share of what all contributed."""
    beside: str | None = None
    run: Run | None = None
    """The finished run; None while it is running."""


def answer(
    ramole: Ramole, request: Request, live: Live, *, beside: bool, address: str = ""
) -> Generator[AnswerUpdate, None, None]:
    """Yield updates of the answer, the last one with the run; raises RamoleError."""
    reading = None
    try:
        for progress in loaded(ramole, live.cancelled):
            said = f"{progress}; your question is answered as soon as it is there."
            yield AnswerUpdate(said, share=loading_of(ramole).fraction)
        if live.cancelled.is_set():
            return
        yield AnswerUpdate(FINDING, share=0)
        requests = [request, request_beside(request)] if beside else [request]
        reading = Reading(
            ramole,
            requests,
            session=request.owner,
            address=address,
            cancelled=live.cancelled,
            after=lambda reading: _keep(ramole, reading, live, request),
        )
        yield from _draw(ramole, reading, live, request)
    finally:
        if reading is None:
            live.ended.set()


def found_by(ramole: Ramole, request: Request, selection: Selection) -> tuple[FoundAdapter, ...]:
    """The adapters that answer, in their order, and the nearest of those that were left; without
    these where they cannot be found now."""
    cards = {card.name: card for card in ramole.pool.cards(request.owner)}

    def found(name: str, score: float, taken: bool, without: str = NAMED) -> FoundAdapter:
        card = cards.get(name)
        about = description_of(card, most=ABOUT, sentence=True) if card else ""
        return FoundAdapter(name, score, taken, without, about)

    taken: dict[str, FoundAdapter] = {}
    for part in (selection, *selection.later):
        for name, score in zip(part.adapters, part.scores, strict=True):
            uncompared = isnan(score) and request.adapters is None
            one = found(name, score, True, UNCOMPARED if uncompared else NAMED)
            taken.setdefault(name, one)
    exclude = [name for name in request.exclude if name in cards]
    hits: list[Hit] = []
    if not cards.keys() <= {*exclude, *taken}:
        with suppress(RamoleError):
            k = len(taken) + MAX_LEFT_OUT
            hits = ramole.retrieve(request.prompt, k=k, exclude=exclude, owner=request.owner)
    left = [hit for hit in hits if hit.name not in taken][:MAX_LEFT_OUT]
    return (*taken.values(), *(found(hit.name, hit.score, False) for hit in left))


def _draw(ramole: Ramole, reading: Reading, live: Live, request: Request) -> Iterator[AnswerUpdate]:
    steps, beside = reading.steps[0], len(reading.steps) > 1
    shares: list[np.ndarray] = []
    base = None
    with closing(reading.pictures()) as pictures:
        for _ in pictures:
            count = len(steps)  # the thread may append behind it
            selection = reading.selections.get(0)
            experts = () if selection is None else _experts(selection)
            new = steps[len(shares) : count]
            shares += [
                step.placed(row, experts) for step in new if (row := step.shares) is not None
            ]
            if selection is not None and live.found is None:
                live.found = found_by(ramole, request, selection)
            if beside:
                base = "".join(step.text for step in reading.steps[1])
            if reading.ended.is_set() and live.run is not None:
                yield AnswerUpdate(run=live.run, beside=base)
                return
            note, share = _note(reading, count)
            yield AnswerUpdate(
                note,
                share,
                found=live.found or (),
                experts=experts,
                pieces=tuple(step.text for step in steps[:count]),
                shares=tuple(shares),
                beside=base,
            )


def _experts(selection: Selection) -> tuple[str, ...]:
    """The adapters of all parts of a prompt, in the order in which they answer."""
    parts = (selection, *selection.later)
    return tuple(dict.fromkeys(name for part in parts for name in part.adapters))


def _note(reading: Reading, count: int) -> tuple[str, float | None]:
    """Return the current stage, and before the first token the share that is done."""
    if 0 in reading.answers:
        return STILL, None
    if not count or reading.places.get(0):
        now = progress_of(reading, 0)
        return now.words, None if count else now.share
    step, parts = reading.steps[0][count - 1], len(reading.selections[0].later) + 1
    if step.last:
        return MEASURING, None
    part = f"part {step.part + 1} of {parts}, " if parts > 1 else ""
    return f"Answering… {part}{counted(count, 'token')}", None


def _keep(ramole: Ramole, reading: Reading, live: Live, request: Request) -> None:
    """Keep the result in `live.run`, after the engine is released."""
    answer, selection = reading.answers.get(0), reading.selections.get(0)
    try:
        if answer is not None and selection is not None:
            found = live.found
            whole = Run(
                request=request,
                answer=answer,
                pieces=tuple(step.text for step in reading.steps[0]),
                found=found_by(ramole, request, selection) if found is None else found,
                beside=reading.answers.get(1),
            )
            *earlier, live.run = runs_of(whole, reading.steps[0])
            live.earlier = tuple(earlier)
    finally:
        live.ended.set()


def runs_of(whole: Run, steps: Sequence[Step]) -> list[Run]:
    """A run of each part of a prompt that was answered part by part, as turns of a conversation;
    the bare base's answer to all of it is the last one's."""
    runs: list[Run] = []
    history = list(whole.request.history)
    known = {note for part in whole.answer.parts for note in part.notes}
    left = tuple(note for note in whole.answer.notes if note not in known)
    for n, part in enumerate(whole.answer.parts):
        texts = [step.text for step in steps if step.part == n]
        if n and texts:
            texts[0] = texts[0].removeprefix("\n\n")
        asked = replace(whole.request, prompt=part.part, history=tuple(history), split=None)
        last = n + 1 == len(whole.answer.parts)
        if last and left:  # parts that were not answered
            reason = whole.answer.finish_reason
            part = replace(part, notes=(*part.notes, *left), finish_reason=reason)
        runs.append(
            replace(
                whole,
                request=asked,
                answer=part,
                pieces=tuple(texts),
                found=tuple(one for one in whole.found if one.name in part.adapters),
                beside=whole.beside if last else None,
            )
        )
        history.append((part.part, part.text, tuple(part.adapters)))
    return runs or [whole]


def request_beside(request: Request) -> Request:
    """The same conversation by the base alone, without a trace."""
    return replace(request.by_base(), trace=False)
