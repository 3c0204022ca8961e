"""The token view: every token under its strongest expert's colour and letter, to click or to walk.

Neighbours of one expert share one underline and one letter. A pick reaches Python as a `select`
event whose data are the token's index and the run's name.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from .palette import ink_of, letter_of
from .run import Run, mean_weights, shares, strongest

MEANING = (
    "Colour and letter name the adapter that weighed most when the token was chosen, averaged over "
    "all layers and modules; the stronger the colour, the larger its weight."
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
        js_on_load=(Path(__file__).parent / "tokens.js").read_text("utf-8"),
        apply_default_css=False,
        **options,
    )


def view_of(
    pieces: Sequence[str],
    weights: Sequence[np.ndarray] | np.ndarray,
    experts: Sequence[str],
    *,
    run: str,
    running: bool,
) -> dict[str, Any]:
    """What the browser draws: `weights` has one row [k] for each piece (or none at all)."""
    rows = [[round(float(w), 3) for w in row] for row in weights][: len(pieces)]
    leaders = [strongest(row) for row in weights][: len(pieces)]
    tokens = [
        {
            "t": piece,
            "e": leaders[i] if i < len(leaders) else -1,
            "w": rows[i] if i < len(rows) else [],
            "s": _strength(rows[i], leaders[i]) if i < len(rows) else 0.0,
        }
        for i, piece in enumerate(pieces)
    ]
    legend = [
        {
            "letter": letter_of(e),
            "name": name,
            "colour": ink_of(e).colour,
            "ink": ink_of(e).text,
            "share": round(share, 4),
        }
        for e, (name, share) in enumerate(zip(experts, shares(leaders, len(experts)), strict=True))
    ]
    return {
        "run": run,
        "running": running,
        "tokens": tokens,
        "experts": legend,
        "meaning": _meaning(pieces, leaders, experts),
        "empty": EMPTY,
    }


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


def _meaning(pieces: Sequence[str], leaders: Sequence[int], experts: Sequence[str]) -> str:
    if not pieces:
        return ""
    if not experts:
        return BASE_MEANING
    return MEANING if any(leader >= 0 for leader in leaders) else EVEN_MEANING
