"""The token view: every token under its strongest expert's colour and letter, to click or to walk.

Neighbours of one expert share one underline and one letter. A pick reaches Python as a `select`
event whose data are the token's index and the run's name.

The tokens travel as one text that only grows, a token a line, so that Gradio sends what was added
and walks through nothing.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from ..parts.events import PLAIN
from .palette import ink_of, letter_of
from .run import Run, mean_weights, strongest

MEANING = (
    "Colour and letter name the adapter that weighed most when the token was chosen, averaged over "
    "all layers and modules; the stronger the colour, the larger its weight. Percent: an adapter's "
    "mean weight over the answer, counted as 0 in layers and modules that it leaves alone."
)
EVEN_MEANING = "All adapters weigh the same for every token here, so no colour stands out."
BASE_MEANING = "No adapter was used: this is the base model alone, so there is nothing to colour."
EMPTY = "The answer appears here, token by token. Ask something, or look at a recorded example."
TEMPLATE = """
<div class="tokens">
  <ul class="legend" hidden aria-label="Adapters in this answer"></ul>
  <div class="text" role="group" aria-label="Answer, token by token: arrow keys move, Enter opens">
  </div>
  <p class="meaning"></p>
</div>
"""


def token_view(**options: Any) -> gr.HTML:
    """The component; its value is what `view_of` returns."""
    return gr.HTML(
        value=view_of([], [], [], run="", running=False),
        html_template=TEMPLATE,
        js_on_load=token_script(),
        **PLAIN,
        **options,
    )


def token_script() -> str:
    """The view's own script, over `element`, `props`, `trigger` and `watch`."""
    return (Path(__file__).parent / "tokens.js").read_text("utf-8")


class Growing:
    """The view of one run while it grows; every token is put into words once."""

    def __init__(self, run: str):
        """`run` is the name that a pick brings back."""
        self._run, self._lines = run, ""
        self._count, self._led = 0, Counter[int]()
        self._weighed: dict[int, float] = defaultdict(float)

    def view(
        self,
        pieces: Sequence[str],
        weights: Sequence[np.ndarray] | np.ndarray,
        experts: Sequence[str],
        *,
        running: bool,
    ) -> dict[str, Any]:
        """What the browser draws. `weights` has one row [k] for each piece, or none at all; pieces
        and rows of an earlier call come first in both, unchanged."""
        for i in range(self._count, len(pieces)):
            self._add(pieces[i], weights[i] if i < len(weights) else ())
        total = max(self._count, 1)
        return {
            "run": self._run,
            "running": running,
            "tokens": self._lines,
            "experts": [
                {
                    "letter": letter_of(e),
                    "name": name,
                    "colour": ink_of(e).colour,
                    "ink": ink_of(e).text,
                    "weight": round(self._weighed[e] / total, 4),
                    "led": round(self._led[e] / total, 4),
                }
                for e, name in enumerate(experts)
            ],
            "meaning": self._meaning(experts),
            "empty": EMPTY,
        }

    def _add(self, piece: str, weights: Sequence[float] | np.ndarray) -> None:
        row = [round(float(weight), 3) for weight in weights]
        leader = strongest(weights)
        token = {"t": piece, "e": leader, "w": row, "s": _strength(row, leader)}
        self._lines += json.dumps(token) + "\n"
        self._led[leader] += 1
        for e, weight in enumerate(row):
            self._weighed[e] += weight
        self._count += 1

    def _meaning(self, experts: Sequence[str]) -> str:
        if not self._count:
            return ""
        if not experts:
            return BASE_MEANING
        return MEANING if self._led[-1] < self._count else EVEN_MEANING


def view_of(
    pieces: Sequence[str],
    weights: Sequence[np.ndarray] | np.ndarray,
    experts: Sequence[str],
    *,
    run: str,
    running: bool,
) -> dict[str, Any]:
    """The view in one go, as `Growing.view`."""
    return Growing(run).view(pieces, weights, experts, running=running)


def view_of_run(run: Run, name: str) -> dict[str, Any]:
    """The view of a finished run."""
    return view_of(run.pieces, mean_weights(run.gates), run.experts, run=name, running=False)


def _strength(row: Sequence[float], leader: int) -> float:
    """0 where the leader has no more than an even share, 1 where it has all the weight."""
    total = sum(abs(w) for w in row)
    if leader < 0 or not total:
        return 0.0
    even = 1 / len(row)
    if even == 1:
        return 1.0
    return round(min(max((abs(row[leader]) / total - even) / (1 - even), 0.0), 1.0), 3)
