"""What if: continue an answer from one of its tokens with something switched off, a weight moved,
or another token, and stream it. Without gradio.

The request is the same with the answer's first tokens given (`prefix_ids`). What is switched off is
off from the last of them on (`without`), which is the position that predicts the token, and what
was read before stays as it is, cache and all; or an adapter is left out of the turn, which is read
again by the others as though it had not been found. The second is what effects are made of
(`ramole_core/effects.py`): the token's probability is then `Did.without`. Where a weight is moved,
all of them are fixed from there on (`later_weights`): the others as they were at the token, in mean
over the modules that an adapter has.
"""

import threading
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

from ramole_core import Ramole, RamoleError, Request, mean_weights

from ..charts.explained import changed_html
from ..charts.run import Run
from ..charts.spans import differing
from ..charts.tokens import Growing, view_of_run
from ..model.loading import loaded
from ..model.reading import Reading


@dataclass(frozen=True)
class Change:
    """The change from the token on."""

    off: bool = False
    """Whether something is switched off."""
    adapter: str | None = None
    """None: all of them, so that the base is alone there."""
    layer: int | None = None
    module: str | None = None
    """None: in every one."""
    moved: str | None = None
    """The adapter whose weight is moved."""
    weight: float = 0.0
    """Its new weight."""
    token: int | None = None
    """Taken in place of the answer's own."""
    unfound: bool = False
    """Whether an adapter as a whole is off, from the turn's beginning on."""

    @property
    def words(self) -> str:
        """The change in words, for a heading."""
        said = []
        if self.unfound:
            who = f"{self.adapter} had never" if self.adapter else "no adapter had ever"
            said.append(f"as though {who} been found")
        elif self.off:
            where = "" if self.layer is None else f" in layer {self.layer}"
            where += "" if self.module is None else f"{',' if where else ' in'} {self.module}"
            said.append(f"without {self.adapter or 'any adapter'}{where}")
        if self.moved is not None:
            said.append(f"with {self.moved} at weight {self.weight:.2f} and the others held")
        if self.token is not None:
            said.append("with another token there")
        return ", ".join(said)


def branched(run: Run, index: int, change: Change) -> Request:
    """The request whose answer continues from the token at `index`; raises RamoleError where there
    is nothing to change."""
    trace = run.answer.trace
    if trace is None or not 0 <= index < len(run.pieces):
        raise RamoleError("This answer has no trace to go on from; ask again.")
    if not change.off and change.token is None and change.moved is None:
        raise RamoleError(
            "Choose what to switch off, a weight to move, or another token; then answer from here."
        )
    if change.unfound and change.moved is not None and change.adapter in (None, change.moved):
        raise RamoleError(f"{change.moved} is off, so that it has no weight; switch off another.")
    given = list(trace.token_ids[trace.prompt_length : trace.prompt_length + index])
    given += [] if change.token is None else [change.token]
    start = "turn" if change.unfound else trace.prompt_length + index - 1
    without = [(change.adapter, change.layer, change.module, start)]
    weights = None
    if change.moved is not None:
        weights = weights_at(run, index) | {change.moved: change.weight}
        if change.unfound and change.adapter is not None:
            weights.pop(change.adapter, None)
    longest = max(run.request.max_new_tokens, len(given) + 1)
    return replace(
        run.request,
        split=None,
        prefix_ids=given,
        without=without if change.off else (),
        later_weights=weights,
        max_new_tokens=longest,
        trace=True,
    )


def weights_at(run: Run, index: int) -> dict[str, float]:
    """Each adapter's weight at the token, in mean over the modules that it has."""
    gates, present = run.gates[index : index + 1], run.present[index : index + 1]
    means = mean_weights(gates, present)[0]
    return {name: float(weight) for name, weight in zip(run.experts, means, strict=True)}


@dataclass(frozen=True)
class BranchUpdate:
    """One update of the growing answer."""

    note: str
    kind: str = "busy"
    view: dict[str, Any] | None = None
    """The tokens; None: as before."""
    likely: str = ""
    """HTML: the likeliest tokens as they were and as they are."""


def going_on(
    ramole: Ramole,
    run: Run,
    index: int,
    change: Change,
    cancelled: threading.Event,
    *,
    text: str,
    address: str,
) -> Generator[BranchUpdate, None, None]:
    """Stream updates of the answer from the token at `index` on; `text` is that of the token that
    is taken there, where one is. Raises RamoleError."""
    asked = branched(run, index, change)
    for progress in loaded(ramole, cancelled):
        yield BranchUpdate(f"{progress}; then the answer goes on.")
    reading = Reading(ramole, [asked], session=asked.owner, address=address, cancelled=cancelled)
    said = ""
    growing, before = Growing(f"branch-{index}"), list(run.shares[:index])
    old = run.pieces[:index]
    if change.token is not None:
        before, old = [*before, run.shares[index] * 0], (*old, text)
    with closing(reading.pictures()) as pictures:
        for _ in pictures:
            over, steps = reading.ended.is_set(), list(reading.steps[0])
            pieces = (*old, *(step.text for step in steps))
            rows = ((step, step.shares) for step in steps)
            came = [step.placed(row, run.experts) for step, row in rows if row is not None]
            shares = [*before, *came]
            view = growing.view(pieces, shares, run.experts, running=not over, places=run.places)
            if not over:
                yield BranchUpdate("Answering from here…", view=view)
                continue
            answer = reading.answers.get(0)
            if answer is not None and answer.effects is not None:
                whole = Run(asked, answer, pieces, found=run.found)
                places = [run.places[run.experts.index(name)] for name in whole.experts]
                view = view_of_run(whole, f"branch-{index}", places=places)
            view["differs"] = differing(pieces, run.pieces)
            stopped = "Stopped. " if cancelled.is_set() else ""
            said = f"{stopped}From token {index + 1} on, {change.words}. {verdict(pieces, run)}"
            yield BranchUpdate(said, kind="quiet", view=view)
    if (change.off or change.moved) and not cancelled.is_set():
        yield BranchUpdate(said, kind="quiet", likely=_likely(ramole, run, index, change))


def verdict(pieces: Sequence[str], run: Run) -> str:
    """A sentence on whether the answer changed."""
    if tuple(pieces) == run.pieces:
        return "The answer stays the same, word for word."
    count = len(differing(pieces, run.pieces))
    return f"{count} of {len(pieces)} tokens belong to words that the first answer has not."


def _likely(ramole: Ramole, run: Run, index: int, change: Change) -> str:
    trace = run.answer.trace
    assert trace is not None
    off = branched(run, index, replace(change, token=None))
    position = trace.prompt_length + index - 1  # that predicts the token
    before, after = (
        ramole.explain(one, position, token_ids=trace.token_ids).mixture
        for one in (run.request, off)
    )
    return changed_html(before, after, trace.tokens[position + 1])
