"""What the components of the tab Ask hold: while an answer grows, once it is there, without one.

A picture of a growing answer changes four components, and all four have a value in each: Gradio
builds a component that is left out anew, at ten times the cost of sending it what it has already.
"""

from types import SimpleNamespace
from typing import Any

import gradio as gr

from ..charts.run import Run
from ..charts.tokens import Growing, view_of, view_of_run
from . import token_panel, whole_panel
from .answer import Shown
from .found import found_html, notice_html, timing_html


def growing(ui: SimpleNamespace) -> list[Any]:
    """The components of a picture, and the run that the last one brings."""
    return [ui.notice, ui.view, ui.beside, ui.found, ui.run]


class Drawing:
    """The pictures of one run, in the order of `growing`; what stays the same is made once."""

    def __init__(self, name: str):
        self._view, self._found = Growing(name), found_html(())
        self._last = Shown()

    def picture(self, shown: Shown) -> tuple[Any, ...]:
        """A picture of the run on its way."""
        if shown.found != self._last.found:
            self._found = found_html(shown.found)
        self._last = shown
        view = self._view.view(shown.pieces, shown.weights, shown.experts, running=True)
        note = notice_html(shown.note, kind="busy")
        return note, view, shown.beside or "", self._found, gr.skip()

    def end(self, run: Run) -> tuple[Any, ...]:
        """The last picture again, and the run."""
        *shown, _ = self.picture(self._last)
        return (*shown, run)

    def wrong(self, sentence: str, *, kind: str = "wrong") -> tuple[Any, ...]:
        """No answer, and why."""
        nothing = view_of([], [], [], run="", running=False)
        return notice_html(sentence, kind=kind), nothing, "", self._found, None


def begun(ui: SimpleNamespace, *, beside: bool) -> dict[Any, Any]:
    """An empty answer that is about to grow."""
    ask, stop = _buttons(running=True)
    return {
        ui.notice: notice_html("Finding adapters…", kind="busy"),
        ui.ask: ask,
        ui.stop: stop,
        ui.view: view_of([], [], [], run="", running=True),
        **_beside(ui, "" if beside else None),
        ui.found: found_html(()),
        ui.timing: "",
        ui.downloads: gr.Row(visible=False),
        ui.run: None,
        **whole_panel.cleared(ui.whole),
        **token_panel.closed(ui.token),
    }


def done(ui: SimpleNamespace, run: Run, name: str, *, whole: bool) -> dict[Any, Any]:
    """A finished answer: every panel follows, that of the whole answer only where it is open."""
    said = f"Recorded run: {run.title}." if run.title else ""
    if run.answer.finish_reason == "cancelled":
        said = "Stopped."
    return {
        **ended(ui, said),
        ui.view: view_of_run(run, name),
        **_beside(ui, run.beside.text if run.beside else None),
        ui.found: found_html(run.found),
        ui.timing: timing_html(run),
        ui.downloads: gr.Row(visible=run.answer.trace is not None),
        ui.run: run,
        **token_panel.closed(ui.token),
        **(whole_panel.drawn(ui.whole, run) if whole else whole_panel.cleared(ui.whole)),
    }


def ended(ui: SimpleNamespace, sentence: str) -> dict[Any, Any]:
    """The buttons as at the start, and one sentence; whatever was shown stays."""
    ask, stop = _buttons(running=False)
    return {ui.notice: notice_html(sentence), ui.ask: ask, ui.stop: stop}


def emptied(ui: SimpleNamespace) -> dict[Any, Any]:
    """The buttons as at the start, where no answer came; the notice and what was typed stay."""
    ask, stop = _buttons(running=False)
    return {
        ui.ask: ask,
        ui.stop: stop,
        **_beside(ui, None),
        ui.view: view_of([], [], [], run="", running=False),
        ui.run: None,
    }


def _buttons(*, running: bool) -> tuple[gr.Button, gr.Button]:
    return gr.Button(interactive=not running), gr.Button(interactive=running)


def _beside(ui: SimpleNamespace, text: str | None) -> dict[Any, Any]:
    return {
        ui.beside: text or "",
        ui.beside_column: gr.Column(visible=text is not None),
    }
