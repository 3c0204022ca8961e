"""What runs in the browser: playback of the answer, and the picked token in every picture."""

from typing import Any

import gradio as gr
import numpy as np

from ..charts.explained import spell
from ..charts.palette import entry_of
from ..charts.run import Run
from ..charts.spans import PER, spans_of
from ..parts.events import script_beside, scripted


def marks(*, elem_id: str) -> gr.HTML:
    """The component, which shows nothing itself; its value is what `marks_of` returns."""
    hidden, script = '<span hidden aria-hidden="true"></span>', script_beside(__file__, "marks.js")
    return scripted(marks_of(None, "", None), hidden, script, elem_id=elem_id)


def marks_of(run: Run | None, name: str, token: int | None) -> dict[str, Any]:
    """The picked token, and each token's column in the pictures."""
    pieces = () if run is None else run.pieces
    return {"run": name, "token": token, "at": {per: list(spans_of(pieces, per).at) for per in PER}}


TEMPLATE = """
<div class="player" hidden>
  <div class="bar" role="group" aria-label="Playback">
    <button type="button" class="back" aria-label="One token back">◂</button>
    <button type="button" class="play">▶ Play</button>
    <button type="button" class="on" aria-label="One token on">▸</button>
    <input type="range" min="1" step="1" aria-label="Token of the answer">
    <span class="where"></span>
  </div>
  <div class="growth" aria-hidden="true"></div>
  <ol class="so-far" aria-label="Share of each adapter so far"></ol>
  <p class="caption">Each adapter's share from the first token to this one; what is left blank the
  base would have said.</p>
</div>
"""


def player(*, elem_id: str) -> gr.HTML:
    """The component; its value is what `player_of` returns."""
    script = script_beside(__file__, "player.js")
    return scripted(player_of(None, ""), TEMPLATE, script, elem_id=elem_id)


def player_of(run: Run | None, name: str) -> dict[str, Any]:
    """The player's value; empty where no adapter was at work."""
    shares = np.zeros((0, 0)) if run is None or not run.experts else run.shares
    if run is None or not shares.size:
        return {"run": name, "experts": [], "shares": [], "texts": []}
    return {
        "run": name,
        "experts": [
            entry_of(expert, place) for expert, place in zip(run.experts, run.places, strict=True)
        ],
        "shares": np.round(shares.astype(np.float64), 3).tolist(),
        "texts": [spell(piece) for piece in run.pieces[: len(shares)]],
    }
