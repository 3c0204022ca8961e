"""Stream an answer that continues from one of its tokens. Without gradio."""

import threading
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ramole_core import Step

from ..charts.explained import changed_html
from ..charts.run import Run
from ..charts.spans import differing
from ..charts.tokens import Growing, view_of_run
from ..model.loading import loaded
from ..model.reading import Reading
from .branch import Change, branch_run, branched, grown

if TYPE_CHECKING:
    from ramole_core import Ramole


@dataclass(frozen=True)
class Look:
    """One picture of the growing answer."""

    note: str
    kind: str = "busy"
    view: dict[str, Any] | None = None
    """The tokens; None: as before."""
    likely: str = ""
    """HTML: the likeliest tokens as they were and as they are."""


def going_on(
    ramole: "Ramole",
    run: Run,
    index: int,
    change: Change,
    cancelled: threading.Event,
    *,
    text: str,
    address: str,
) -> Generator[Look, None, None]:
    """Stream pictures of the answer from the token at `index` on; `text` is that of the token that
    is taken there, where one is. Raises RamoleError."""
    asked = branched(run, index, change)
    for progress in loaded(ramole, cancelled):
        yield Look(f"{progress}; then the answer goes on.")
    reading = Reading(ramole, [asked], session=asked.owner, address=address, cancelled=cancelled)
    said = ""
    growing, before = Growing(f"branch-{index}"), list(run.shares[:index])
    before += [] if change.token is None else [run.shares[index] * 0]
    with closing(reading.pictures()) as pictures:
        for _ in pictures:
            over, steps = reading.ended.is_set(), list(reading.steps[0])
            pieces = grown(run, index, change, [step.text for step in steps], text)
            shares = [*before, *(_among(step, run.experts) for step in steps)]
            view = growing.view(pieces, shares, run.experts, running=not over, places=run.places)
            if not over:
                yield Look("Answering from here…", view=view)
                continue
            answer = reading.answers.get(0)
            if answer is not None and answer.effects is not None:
                whole = branch_run(asked, answer, pieces, run)
                places = [run.places[run.experts.index(name)] for name in whole.experts]
                view = view_of_run(whole, f"branch-{index}", places=places)
            view["differs"] = differing(pieces, run.pieces)
            stopped = "Stopped. " if cancelled.is_set() else ""
            said = f"{stopped}From token {index + 1} on, {change.words}. {verdict(pieces, run)}"
            yield Look(said, kind="quiet", view=view)
    if (change.off or change.moved) and not cancelled.is_set():
        yield Look(said, kind="quiet", likely=_likely(ramole, run, index, change))


def verdict(pieces: Sequence[str], run: Run) -> str:
    """A sentence on whether the answer changed."""
    if tuple(pieces) == run.pieces:
        return "The answer stays the same, word for word."
    count = len(differing(pieces, run.pieces))
    return f"{count} of {len(pieces)} tokens belong to words that the first answer has not."


def _among(step: Step, experts: Sequence[str]) -> np.ndarray:
    """The token's shares [k], 0 for those of the first answer's adapters that are not there."""
    told = {} if step.shares is None else dict(zip(step.adapters, step.shares, strict=True))
    return np.array([told.get(name, 0.0) for name in experts], np.float32)


def _likely(ramole: "Ramole", run: Run, index: int, change: Change) -> str:
    trace = run.answer.trace
    assert trace is not None
    off = branched(run, index, replace(change, token=None))
    position = trace.prompt_length + index - 1
    before, after = (
        ramole.explain(one, position, token_ids=trace.token_ids).mixture
        for one in (run.request, off)
    )
    return changed_html(before, after, trace.tokens[position + 1])
