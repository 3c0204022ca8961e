"""The token view: every token under the colour and letter of its leading expert, clickable.

Neighbours of one expert share one underline and one letter. A pick reaches Python as a `select`
event whose data are the token's index and the run's name.

Two keys may be added to a value: `unknown`, where the leader is unknown, so that none is named; and
`plain`, where the pieces are text that opens nothing.

The tokens travel as one text that only grows, a token a line, so that Gradio sends what was added
and walks through nothing.
"""

import json
import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import gradio as gr
import numpy as np

from ramole_core import MAX_SHAPLEY

from ..parts.events import script_beside, scripted
from .did import leader_of
from .palette import entry_of
from .run import CONTRIBUTION, EFFECT, Run, strongest

MEANING = (
    "Coloured: an adapter made this piece of a word (a token) likelier than the base alone, pale "
    "1.2 times, strong 10 times or more. Not coloured: after the same words the base would have "
    "gone on in the same way. The line below a token shows each adapter's part."
)
LEFT_OUT = (
    "With more than {most} adapters each is left out once, so that their effects need not add up."
)
UNTOUCHED = "No adapter changed anything here: the base alone would have said all of it."
GROWING = (
    "Faint while the answer is written: the colour of the adapter that moved the model's layers "
    "most. Colours settle once it is measured what each adapter changed."
)
CONTRIBUTED = (
    "Colour and letter name the adapter that contributed most when the token was chosen: how far "
    "it moved the outputs of the model's layers, averaged over all layers and modules (where it "
    "has none it did nothing). The stronger the colour, the larger its share. Percent: its share "
    "of what all adapters contributed, over the answer. What each adapter changed was not measured."
)
EVEN_MEANING = "All adapters contributed the same to every token here, so no colour stands out."
BASE_MEANING = "No adapter was used: this is the base model alone, so there is nothing to colour."
FULL = math.log(10)
"""Nats of the strongest colour: a token made 10 times likelier."""
EMPTY = "The answer appears here, token by token."
TEMPLATE = """
<div class="tokens">
  <button type="button" class="copy" hidden aria-live="polite">Copy</button>
  <ul class="legend" hidden aria-label="Adapters in this answer"></ul>
  <div class="text" role="group" aria-label="Answer, token by token: arrow keys move, Enter opens">
  </div>
  <p class="meaning"></p>
</div>
"""


def token_view(*, elem_id: str) -> gr.HTML:
    """The component; its value is what `view_of` returns."""
    return scripted(empty_view(), TEMPLATE, token_script(), elem_id=elem_id)


def token_script() -> str:
    """The view's own script, over `element`, `props`, `trigger` and `watch`."""
    return script_beside(__file__, "tokens.js")


class Growing:
    """The view of one growing run; every token is described once."""

    def __init__(self, run: str, *, measure: str = CONTRIBUTION):
        """`run` is the name that a pick brings back; `measure`: what its shares are of."""
        self.run, self._lines, self._measure = run, "", measure
        self._count, self._led = 0, Counter[int]()
        self._shared: dict[int, float] = defaultdict(float)

    def view(
        self,
        pieces: Sequence[str],
        shares: Sequence[np.ndarray] | np.ndarray,
        experts: Sequence[str],
        *,
        running: bool,
        places: Sequence[int] | None = None,
        effects: np.ndarray | None = None,
    ) -> dict[str, Any]:
        """The view's value. `shares` has one row [k] for each piece, or none at all; pieces and
        rows of an earlier call come first in both, unchanged. `places` number the experts for their
        letters and colours (0, 1, ... if not said); `effects` [n, k] are in nats."""
        places = range(len(experts)) if places is None else places
        for i in range(self._count, len(pieces)):
            row = None if effects is None or i >= len(effects) else effects[i]
            self._add(pieces[i], shares[i] if i < len(shares) else (), row)
        total = max(self._count, 1)
        measured = effects is not None and bool(experts) and not running
        return {
            "measure": self._measure,
            "untouched": round(self._led[-1] / total, 4) if measured else 0,
            "run": self.run,
            "running": running,
            "tokens": self._lines,
            "experts": [
                {
                    **entry_of(name, place),
                    "share": round(self._shared[e] / total, 4),
                    "led": round(self._led[e] / total, 4),
                }
                for e, (name, place) in enumerate(zip(experts, places, strict=True))
            ],
            "meaning": self._meaning(experts, running=running),
            "empty": EMPTY,
        }

    def _add(
        self, piece: str, shares: Sequence[float] | np.ndarray, effects: np.ndarray | None
    ) -> None:
        row = [round(float(share), 3) for share in shares]
        leader = strongest(shares) if effects is None else leader_of(effects)
        token: dict[str, Any] = {"t": piece, "e": leader, "w": row, "s": _strength(row, leader)}
        if effects is not None:
            token["n"] = [round(float(effect), 2) for effect in effects]
            token["s"] = _of_full(float(effects[leader])) if leader >= 0 else 0.0
        self._lines += json.dumps(token) + "\n"
        self._led[leader] += 1
        for e, share in enumerate(row):
            self._shared[e] += share
        self._count += 1

    def _meaning(self, experts: Sequence[str], *, running: bool) -> str:
        if not self._count:
            return ""
        if not experts:
            return BASE_MEANING
        if self._measure == EFFECT:
            more = f" {LEFT_OUT.format(most=MAX_SHAPLEY)}" if len(experts) > MAX_SHAPLEY else ""
            return (MEANING if self._led[-1] < self._count else UNTOUCHED) + more
        if running:
            return GROWING
        return CONTRIBUTED if self._led[-1] < self._count else EVEN_MEANING


def view_of(
    pieces: Sequence[str],
    shares: Sequence[np.ndarray] | np.ndarray,
    experts: Sequence[str],
    *,
    run: str,
    running: bool,
    measure: str = CONTRIBUTION,
    places: Sequence[int] | None = None,
    effects: np.ndarray | None = None,
) -> dict[str, Any]:
    """The view in one go, as `Growing.view`."""
    growing = Growing(run, measure=measure)
    return growing.view(pieces, shares, experts, running=running, places=places, effects=effects)


def empty_view(said: str = EMPTY, *, running: bool = False) -> dict[str, Any]:
    """The view without a token; `said` stands in its place."""
    return {**view_of([], [], [], run="", running=running), "empty": said}


def view_of_run(run: Run, name: str, *, places: Sequence[int] | None = None) -> dict[str, Any]:
    """The view of a finished run; `places` as for `Growing.view`, its own if not said."""
    return view_of(
        run.pieces,
        run.shares,
        run.experts,
        run=name,
        running=False,
        measure=run.measure,
        places=run.places if places is None else places,
        effects=run.effects,
    )


def _of_full(effect: float) -> float:
    """How strong the colour of an effect is, 0 to 1."""
    return round(min(max(effect / FULL, 0.0), 1.0), 3)


def _strength(row: Sequence[float], leader: int) -> float:
    """0 where the leader has no more than an even share, 1 where it has all."""
    total = sum(row)
    if leader < 0 or not total:
        return 0.0
    even = 1 / len(row)
    if even == 1:
        return 1.0
    return round(min(max((row[leader] / total - even) / (1 - even), 0.0), 1.0), 3)
