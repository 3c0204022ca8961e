"""The picture of a batch: requests down, adapters across, each square as full as its share.

The browser's part is `picture.js`. A row is an option of a list, so that screen readers read each
request's adapters with their shares; the table of results is the twin in text.
"""

import math
from collections import Counter
from typing import Any

import gradio as gr

from ..parts.asked import counted
from ..parts.events import script_beside, scripted
from ..parts.markup import clipped
from .run import BatchRun, RowRun

LABEL = 90
"""Characters of a prompt beside its row."""
EMPTY = (
    "The map of your batch: each row becomes a line, each adapter that it uses a column, and the "
    "fuller a square, the more that adapter contributes. All lines go through the model together."
)
TEMPLATE = """
<figure class="rm-map">
  <div class="tools" hidden>
    <button type="button" class="group" aria-pressed="false">group by adapter</button>
    <button type="button" class="compact" aria-pressed="false">compact</button>
    <span class="scale" aria-hidden="true">share 0 <i></i> 1</span>
  </div>
  <div class="frame" hidden>
    <div class="heads" aria-hidden="true"></div>
    <div class="stripes" aria-hidden="true"></div>
    <div class="lines" role="listbox" aria-label="Requests and their adapters"></div>
  </div>
  <div class="empty"><div class="sketch" aria-hidden="true"></div><p></p></div>
  <figcaption></figcaption>
</figure>
"""


def picture(*, elem_id: str) -> gr.HTML:
    """The component; its value is what `picture_of` returns."""
    return scripted(
        picture_of(None), TEMPLATE, script_beside(__file__, "picture.js"), elem_id=elem_id
    )


def picture_of(run: BatchRun | None) -> dict[str, Any]:
    """The view's value; columns in order of appearance, once ended the busiest first."""
    if run is None:
        return {"run": "", "running": False, "columns": [], "rows": [], "said": "", "empty": EMPTY}
    uses = used(run)
    running = not run.ended.is_set()
    names = list(uses) if running else sorted(uses, key=lambda name: (-uses[name], name))
    place = {name: i for i, name in enumerate(names)}
    return {
        "run": run.name,
        "running": running,
        "columns": [{"name": name, "uses": uses[name]} for name in names],
        "rows": [_line(item, place) for item in run.items],
        "said": caption(run),
        "empty": "",
    }


def used(run: BatchRun) -> Counter[str]:
    """Return the number of rows that use each adapter, in order of appearance."""
    return Counter(name for item in run.items for name in item.experts)


def caption(run: BatchRun) -> str:
    """The picture in words."""
    uses = used(run)
    if not uses:
        return "No row uses an adapter so far."
    asked = sum(item.state != "refused" for item in run.items)
    most, count = max(uses.items(), key=lambda pair: pair[1])
    return (
        f"{counted(asked, 'request')}, {_adapters(len(uses))}; most used: {most}, by {count}. "
        "The fuller a square, the larger the adapter's share of what all adapters contributed to "
        "that answer (how far each moved the outputs of the model's layers; of a row with effects, "
        "its share of what made the answer likelier). By this map the requests share every pass "
        "through the model, and yet each is answered by its own adapters alone. Pick a "
        "line for its answer; the table below says the same in numbers."
    )


def _adapters(count: int) -> str:
    return "1 adapter" if count == 1 else f"{count} different adapters"


def _line(item: RowRun, place: dict[str, int]) -> dict[str, Any]:
    shares = item.shares
    cells = [
        [place[name], None if shares is None else round(shares[i], 2)]
        for i, name in enumerate(item.experts)
    ]
    return {
        "n": item.row.index + 1,
        "s": item.state,
        "t": clipped(" ".join(item.prompt.split()), LABEL),
        "c": cells,
    }


def shared(item: RowRun) -> str:
    """`squad_v1 0.62, dart 0.20`: a row's adapters with their shares, in text."""
    shares = item.shares
    return ", ".join(
        name if shares is None else f"{name} {shares[i]:.2f}" for i, name in enumerate(item.experts)
    )


def finite(score: float) -> float | None:
    """None for nan: JSON and tables have no such number."""
    return None if math.isnan(score) else round(score, 4)
