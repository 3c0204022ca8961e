"""Updates of the tab Inspect for a run, a choice and a picked token."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from ..charts.explained import token_html
from ..charts.heat import WINNER
from ..charts.loads import Side, changed, loads_figure, loads_of, loads_table
from ..charts.palette import letter_of
from ..charts.plots import SHORT, Table
from ..charts.run import CONTRIBUTION, EFFECT, MEASURES, Run
from ..charts.tokens import empty_view, view_of_run
from ..parts.link import copies
from ..parts.markup import notice_html
from .cuts import CUTS, Choice, Seen, seen
from .layout import WHOEVER, InspectLayout
from .player import marks_of, player_of
from .sources import PICK, Inspected, empty_sentence, head_html, side_html

NOTHING_YET = "There is no answer yet. Ask something in the tab Ask, and come back."
SAME = "This run is pinned. Choose another one above, or ask in Ask and come back, to see both."


@dataclass(frozen=True)
class Both:
    """Two runs that are compared, this one first."""

    sides: tuple[Side, Side]
    what: str

    @property
    def table(self) -> Table:
        """The table of their loads."""
        return loads_table(self.sides, what=self.what)


def opened(
    ui: InspectLayout,
    held: Inspected,
    choice: Choice,
    *,
    choices: Sequence[tuple[str, int]],
    link: str,
    pinned: Run | None,
    opens: Sequence[bool],
) -> dict[Any, Any]:
    """Everything for a run that was not shown before."""
    run, found = held.run, seen(held.run, choice)
    shown: dict[Any, Any] = {
        ui.held: held,
        ui.copy: copies(link, tokens="#inspect-answer"),
        ui.source: gr.Dropdown(choices=list(choices), value=held.source if choices else None),
        ui.player: player_of(run, held.name),
        ui.marks: marks_of(run, held.name, None),
        ui.token: PICK,
        ui.body: gr.Column(visible=found is not None),
        **against(ui, found, pinned, open=opens[-1]),
    }
    if run is None:
        said = notice_html(NOTHING_YET)
        return {**shown, ui.head: "", ui.notice: said, ui.view: empty_view("")}
    sentence = "" if found is not None else empty_sentence(run)
    shown |= {ui.head: head_html(run), ui.notice: notice_html(sentence)}
    shown |= {ui.view: view_of_run(run, held.name)}
    if found is None:
        return shown | {part: None for one in ui.pictures.values() for part in [one.plot]}
    names = [cut.name for cut in CUTS]
    return {**shown, **_controls(ui, found), **figures(ui, found, opens, names=names)}


def figures(
    ui: InspectLayout, found: Seen, opens: Sequence[bool], *, names: Iterable[str]
) -> dict[Any, Any]:
    """The pictures of these names, with their tables where they are unfolded."""
    shown: dict[Any, Any] = {}
    wanted = set(names)
    for cut, open in zip(CUTS, opens, strict=False):
        if cut.name in wanted:
            table = cut.table(found) if open else None
            shown |= ui.pictures[cut.name].drawn(cut.figure(found), table)
    return shown


def against(
    ui: InspectLayout, found: Seen | None, pinned: Run | None, *, open: bool
) -> dict[Any, Any]:
    """The pinned run beside the one that is shown."""
    label = "Pin this run" if pinned is None else "Unpin"
    shown = {ui.pin: gr.Button(label), ui.both: gr.Column(visible=pinned is not None)}
    if pinned is None or found is None:
        return {**shown, ui.sides: "", **ui.against.drawn(None, None)}
    both = sides_of(found, pinned)
    named = side_html("This run", found.run) + side_html("Pinned run", pinned)
    said = notice_html(SAME if pinned is found.run else changed(both.sides))
    figure = loads_figure(both.sides, what=both.what)
    drawn = ui.against.drawn(figure, both.table if open else None)
    return {**shown, ui.sides: f'<div class="both">{named}</div>{said}', **drawn}


def sides_of(found: Seen, pinned: Run | None) -> Both:
    """The loads of both; an adapter that both have keeps its letter and colour."""
    run = found.run
    other = run if pinned is None else pinned
    unmeasured = found.what == EFFECT and other.effects is None
    what = CONTRIBUTION if unmeasured else found.what
    met = [*run.met, *run.experts]
    first = Side("this run", loads_of(run, what=what))
    return Both((first, Side("pinned run", loads_of(other, what=what, before=met))), what)


def token_update(ui: InspectLayout, held: Inspected, index: int | None) -> dict[Any, Any]:
    """One token, in words and marked; the hint where there is no such token."""
    run = held.run
    if run is None or index is None or not 0 <= index < len(run.pieces):
        return {ui.token: PICK}
    told = token_html(run, index, closable=False)
    return {ui.token: told, ui.marks: marks_of(run, held.name, index)}


def _controls(ui: InspectLayout, found: Seen) -> dict[Any, Any]:
    what, _, expert, layer, module = ui.controls
    grid = found.grid
    named: list[tuple[str, str | int | float]] = [
        (f"{letter_of(place)} {name}", e)
        for e, (name, place) in enumerate(zip(grid.experts, grid.places, strict=True))
    ]
    measures = [one for one in MEASURES if one != EFFECT or found.run.effects is not None]
    modules: list[tuple[str, str | int | float]] = [(SHORT.get(m, m), m) for m in grid.modules]
    return {
        what: gr.Radio(choices=measures, value=found.what),
        expert: gr.Dropdown(choices=[(WHOEVER, WINNER), *named], value=found.expert),
        layer: gr.Slider(minimum=min(grid.layers), maximum=max(grid.layers), value=found.layer),
        module: gr.Dropdown(choices=modules, value=found.module),
    }
