"""The tab Inspect: one answer taken apart by layer, module, token and adapter.

Nothing is drawn before the tab is opened, and then only runs that are new to it.
"""

import secrets
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import gradio as gr

from ramole_core import Ramole

from ..charts.explained import token_html
from ..charts.heat import WINNER
from ..charts.loads import changed, loads_figure
from ..charts.palette import letter_of
from ..charts.plots import SHORT
from ..charts.recorded import recorded_files, trace_files
from ..charts.run import EFFECT, MEASURES, Run, weight_of
from ..charts.tokens import empty_view, view_of_run
from ..parts import downloads
from ..parts.errors import one_sentence
from ..parts.events import AT_ONCE, EACH, QUIET, number_in, session_of, text_in
from ..parts.link import copies
from ..parts.markup import notice_html
from ..session.quota import quota_of
from ..session.store import Drawer
from .cuts import CUTS, Choice, RunView, seen
from .files import write_page, write_table
from .layout import WHOEVER, InspectLayout
from .player import marks_of, player_of
from .sources import ASKED, PICK, Inspected, Sources, empty_sentence, head_html, side_html

NONE = "There is nothing to take away: no adapter was at work in this run."
NO_TRACE = "This run has no trace."
NOTHING_YET = "There is no answer yet. Ask something in the tab Ask, and come back."
SAME = "This run is pinned. Choose another one above, or ask in Ask and come back, to see both."


def tab(ramole: Ramole, asked: gr.State) -> None:
    """Build the tab inside the Blocks that is open."""
    with gr.Tab("Inspect", id="inspect", elem_id="inspect-tab") as here:
        ui = InspectLayout()
    _connect(ui, InspectHandlers(ramole, ui, Sources(recorded_files())), here, asked)


class InspectHandlers:
    def __init__(self, ramole: Ramole, ui: InspectLayout, sources: Sources):
        self.ramole, self.ui, self.sources = ramole, ui, sources
        presence = quota_of(ramole).presence
        self.call = presence.call
        self._kept: Drawer[tuple[Run, ...]] = presence.sessions.drawer(
            weigh=lambda runs: sum(map(weight_of, runs))
        )

    def weigh(self, request: gr.Request, held: Inspected | None, pinned: Run | None) -> None:
        """Count in the session's limit what the tab keeps, but for recorded runs, which all
        visitors share."""
        kept = [pinned] if held is None else [held.run, held.asked, pinned]
        runs = {id(run): run for run in kept if run is not None and not run.title}
        self._kept.put(session_of(request), tuple(runs.values()))

    def on_open(self, asked: Run | None, held: Inspected | None, pinned: Run | None, *values):
        """Show the answer in Ask, where it is new; else the first recorded run."""
        if held is not None and (asked is None or asked is held.asked):
            return {self.ui.held: held}
        return self.show(
            ASKED if asked is not None else self.sources.start(), asked, pinned, values
        )

    def on_source(
        self, source: int | None, asked: Run | None, held: Inspected | None, pinned, *values
    ):
        """Show another run. A dropdown that loses the focus sends its value again, which is none;
        and while Ask has no answer, the last one can still be chosen."""
        if asked is None and held is not None:
            asked = held.asked
        if not isinstance(source, int) or (run := self.sources.run(source, asked)) is None:
            return {self.ui.held: held}
        if held is not None and run is held.run:
            return {self.ui.held: held}
        return self.show(source, asked, pinned, values)

    def show(
        self, source: int, asked: Run | None, pinned: Run | None, values: Sequence[Any]
    ) -> dict[Any, Any]:
        """Everything about a run that was not shown before; `values` of the controls, then which
        tables are unfolded."""
        with one_sentence():
            ui, run = self.ui, self.sources.run(source, asked)
            held = Inspected(run, secrets.token_hex(4), source, asked)
            choice, opens = self.split(values)
            found = seen(run, Choice(choice.what, choice.per))  # the layer is another run's
            choices = self.sources.choices(asked)
            shown: dict[Any, Any] = {
                ui.held: held,
                ui.copy: copies(self.sources.link(source, asked), tokens="#inspect-answer"),
                ui.source: gr.Dropdown(choices=choices, value=source if choices else None),
                ui.player: player_of(run, held.name),
                ui.marks: marks_of(run, held.name, None),
                ui.token: PICK,
                ui.body: gr.Column(visible=found is not None),
                **self.against(found, pinned, open=opens[-1]),
            }
            if run is None:
                said = notice_html(NOTHING_YET)
                return {**shown, ui.head: "", ui.notice: said, ui.view: empty_view("")}
            shown |= {ui.head: head_html(run), ui.view: view_of_run(run, held.name)}
            if found is None:
                blank = {one.plot: None for one in ui.pictures.values()}
                return {**shown, **blank, ui.notice: notice_html(empty_sentence(run))}
            every = self.figures(found, opens, names=[cut.name for cut in CUTS])
            return {**shown, **self.fitted(found), **every, ui.notice: ""}

    def figures(
        self, found: RunView, opens: Sequence[bool], *, names: Iterable[str]
    ) -> dict[Any, Any]:
        """The pictures of these names, with their tables where they are unfolded."""
        shown: dict[Any, Any] = {}
        for cut, open in zip(CUTS, opens, strict=False):
            if cut.name in names:
                table = cut.table(found) if open else None
                shown |= self.ui.pictures[cut.name].drawn(cut.figure(found), table)
        return shown

    def fitted(self, found: RunView) -> dict[Any, Any]:
        """The controls, with the choices that this run has."""
        what, _, expert, layer, module = self.ui.controls
        grid = found.grid
        named: list[tuple[str, str | int | float]] = [
            (f"{letter_of(place)} {name}", e)
            for e, (name, place) in enumerate(zip(grid.experts, grid.places, strict=True))
        ]
        measures = [one for one in MEASURES if one != EFFECT or found.run.effects is not None]
        modules: list[tuple[str, str | int | float]] = [(SHORT.get(m, m), m) for m in grid.modules]
        layers = grid.layers
        return {
            what: gr.Radio(choices=measures, value=found.what),
            expert: gr.Dropdown(choices=[(WHOEVER, WINNER), *named], value=found.expert),
            layer: gr.Slider(minimum=min(layers), maximum=max(layers), value=found.layer),
            module: gr.Dropdown(choices=modules, value=found.module),
        }

    def against(self, found: RunView | None, pinned: Run | None, *, open: bool) -> dict[Any, Any]:
        """The pinned run beside the one that is shown."""
        ui, label = self.ui, "Pin this run" if pinned is None else "Unpin"
        shown = {ui.pin: gr.Button(label), ui.both: gr.Column(visible=pinned is not None)}
        if pinned is None or found is None:
            return {**shown, ui.sides: "", **ui.against.drawn(None, None)}
        both = found.beside(pinned)
        named = side_html("This run", found.run) + side_html("Pinned run", pinned)
        said = notice_html(SAME if pinned is found.run else changed(both.sides))
        figure = loads_figure(both.sides, what=both.what)
        drawn = ui.against.drawn(figure, both.table if open else None)
        return {**shown, ui.sides: f'<div class="both">{named}</div>{said}', **drawn}

    def on_choice(self, names: Sequence[str]):
        """A handler that draws the pictures of these names anew."""

        def on_choice(held: Inspected | None, pinned: Run | None, *values):
            choice, opens = self.split(values)
            found = seen(None if held is None else held.run, choice)
            if found is None:
                return {self.ui.pinned: pinned}
            shown = self.figures(found, opens, names=names)
            if "loads" in names:
                shown |= self.against(found, pinned, open=opens[-1])
            return shown

        return on_choice

    def on_pick(self, held: Inspected | None, event: gr.EventData):
        """Mark a token picked in the answer, by playback, or in a picture."""
        index = number_in(event, "index")
        if held is None or text_in(event, "run") != held.name or (run := held.run) is None:
            return {self.ui.token: PICK}
        if index is None or not 0 <= index < len(run.pieces):
            return {self.ui.token: PICK}
        told = token_html(run, index, closable=False)
        return {self.ui.token: told, self.ui.marks: marks_of(run, held.name, index)}

    def on_fold(self, n: int):
        """A handler that fills the table of picture n, which is unfolded."""

        def on_fold(held: Inspected | None, pinned: Run | None, *values):
            choice, _ = self.split(values)
            found = seen(None if held is None else held.run, choice)
            part = [*self.ui.pictures.values(), self.ui.against][n]
            if found is None:
                return {part.open: True}
            if part is self.ui.against:
                return {part.open: True, **self.against(found, pinned, open=True)}
            opens = [k == n for k in range(len(self.ui.opens))]
            shown = self.figures(found, opens, names=[part.name])
            return {part.open: True, part.table: shown[part.table]}

        return on_fold

    def on_pin(self, held: Inspected | None, pinned: Run | None, *values):
        """Pin this run; a second press unpins it."""
        choice, opens = self.split(values)
        run = None if held is None else held.run
        kept = None if pinned is not None else run
        found = seen(run, choice)
        return {self.ui.pinned: kept, **self.against(found, kept, open=opens[-1])}

    def on_table(self, name: str):
        """A handler that gives the table of this picture as a file."""

        def on_table(held: Inspected | None, pinned: Run | None, *values):
            with one_sentence():
                found = self.found(held, values)
                if name == self.ui.against.name:
                    return str(write_table(name, found.beside(pinned).table))
                cut = next(cut for cut in CUTS if cut.name == name)
                return str(write_table(name, cut.table(found)))

        return on_table

    def on_page(self, held: Inspected | None, pinned: Run | None, *values):
        """All pictures as one page."""
        with one_sentence():
            found = self.found(held, values)
            both = None if pinned is None else found.beside(pinned)
            return str(write_page(found, both))

    def on_trace(self, request: gr.Request, held: Inspected | None):
        """The trace as files, with request and facts."""
        run = None if held is None else held.run
        if run is None or run.answer.trace is None:
            raise gr.Error(NO_TRACE, print_exception=False)
        with one_sentence(), self.call(request) as visitor:
            return trace_files(self.ramole, run, visitor.owner)

    def found(self, held: Inspected | None, values: Sequence[Any]):
        """The run as it is shown; a gr.Error where there is nothing to see."""
        shown = seen(None if held is None else held.run, self.split(values)[0])
        if shown is None:
            raise gr.Error(NONE, print_exception=False)
        return shown

    def split(self, values: Sequence[Any]) -> tuple[Choice, list[bool]]:
        """The values of the controls, and which tables are unfolded."""
        count = len(self.ui.controls)
        return Choice(*values[:count]), [bool(one) for one in values[count:]]


def _connect(ui: InspectLayout, handlers: InspectHandlers, here: gr.Tab, asked: gr.State) -> None:
    what, per, expert, layer, module = ui.controls
    rest = [ui.pinned, *ui.controls, *ui.opens]

    def weighed(handler: Callable[..., dict[Any, Any]]) -> Callable[..., dict[Any, Any]]:
        def handle(request: gr.Request, *values: Any) -> dict[Any, Any]:
            shown, (held, pinned, *_) = handler(*values), values[-1 - len(rest) :]
            handlers.weigh(request, shown.get(ui.held, held), shown.get(ui.pinned, pinned))
            return shown

        return handle

    on_open, on_source = weighed(handlers.on_open), weighed(handlers.on_source)
    here.select(on_open, [asked, ui.held, *rest], ui.all, **QUIET)
    ui.again.click(on_open, [asked, ui.held, *rest], ui.all, **QUIET)
    ui.source.input(on_source, [ui.source, asked, ui.held, *rest], ui.all, **QUIET)
    ui.pin.click(weighed(handlers.on_pin), [ui.held, *rest], ui.compared, **QUIET)

    every, maps = [cut.name for cut in CUTS], ["layers", "layer", "module"]
    chosen = {
        what: [*maps, "loads"],
        per: every,
        expert: maps,
        layer: ["layer"],
        module: ["module"],
    }
    for control, names in chosen.items():
        shown: list[Any] = [part for name in names for part in ui.pictures[name].shown]
        shown += ui.compared
        control.input(  # type: ignore[attr-defined]
            handlers.on_choice(names),
            [ui.held, *rest],
            shown,
            trigger_mode="always_last",
            **QUIET,
        )
    for view in (ui.view, ui.player, ui.marks):
        view.select(handlers.on_pick, ui.held, [ui.token, ui.marks], **EACH)

    for n, part in enumerate([*ui.pictures.values(), ui.against]):
        part.connect()
        taken: list[Any] = [part.open, *part.shown]
        taken += ui.compared if part is ui.against else []
        part.fold.expand(handlers.on_fold(n), [ui.held, *rest], list(dict.fromkeys(taken)), **QUIET)
        part.fold.collapse(lambda: False, None, part.open, **AT_ONCE)
        downloads.connect([part.csv], handlers.on_table(part.name), [ui.held, *rest])
    downloads.connect([ui.html], handlers.on_page, [ui.held, *rest])
    downloads.connect([ui.npz, ui.json], handlers.on_trace, ui.held)
