"""Updates of the tab Ask: for a growing answer, a finished one, and none.

An update of a growing answer changes four components, and always has a value for all four: Gradio
rebuilds a component that is left out, at ten times the cost of resending its value.
"""

from collections.abc import Sequence
from typing import Any

import gradio as gr

from ramole_core import Generation

from ..charts.palette import places_of
from ..charts.run import Run
from ..charts.tokens import Growing, empty_view, view_of_run
from ..model.reading import FINDING
from ..parts.asked import counted, ending
from ..parts.events import free, not_asked_of
from ..parts.fields import run_and_stop
from ..parts.markup import notice_html
from .answer import AnswerUpdate
from .conversation import EMPTY, Turn
from .found import found_html, timing_html
from .layout import ON, AskLayout
from .takeaway import takeaway_of

NOT_ASKED = not_asked_of("#ask-button", "#held", "An answer")
"""Gradio shows no error of an event that is not queued."""
BEYOND = "A weight below 0 works against its adapter, and one above 1 makes more of it than it is."
SAME = "The same answer: no adapter was used above."
GO_ON = f'To ask about it, tick "{ON}".'


class Updates:
    """The updates of one run, in the order of `AskLayout.growing`; fixed parts are made once."""

    def __init__(self, name: str, turns: Sequence[Turn] = ()):
        """`turns`: those before, whose adapters keep their letters and colours."""
        self._view, self._found = Growing(name), found_html(())
        self._before = [adapter for turn in turns for adapter in turn.adapters]
        self._last = AnswerUpdate()

    def picture(self, shown: AnswerUpdate) -> tuple[Any, ...]:
        """Return an update of the running answer."""
        if shown.found != self._last.found:
            self._found = found_html(shown.found, before=self._before)
        self._last = shown
        places = places_of(shown.experts, self._before)
        view = self._view.view(
            shown.pieces, shown.shares, shown.experts, running=True, places=places
        )
        note = notice_html(shown.note, kind="busy", share=shown.share)
        return note, view, shown.beside or "", self._found, gr.skip()

    def end(self, run: Run) -> tuple[Any, ...]:
        """Return the last update, and the run."""
        *shown, _ = self.picture(self._last)
        return (*shown, run)

    def wrong(self, sentence: str, *, kind: str = "wrong") -> tuple[Any, ...]:
        """No answer, with the reason."""
        return notice_html(sentence, kind=kind), empty_view(), "", self._found, None


def begun(ui: AskLayout, *, beside: bool, turns: Sequence[Turn] = ()) -> dict[Any, Any]:
    """An empty answer that is about to grow, after these earlier turns."""
    out = ui.outcome
    return {
        **_buttons(ui, running=True, talking=bool(turns)),
        ui.turns: tuple(turns),
        out.notice: notice_html(FINDING, kind="busy", share=0),
        out.view: empty_view(running=True),
        **_beside(ui, "" if beside else None),
        out.found: found_html(()),
        out.timing: "",
        out.takeaway: takeaway_of(None),
        out.downloads: gr.Row(visible=False),
        ui.path: "",
        ui.run: None,
        **ui.token.closed(),
    }


def fresh(ui: AskLayout) -> dict[Any, Any]:
    """The page before the first question; what is typed and chosen stays."""
    out = ui.outcome
    return {
        **begun(ui, beside=False),
        **ended(ui, "", talking=False),
        out.view: empty_view(),
        out.talk: EMPTY,
    }


def done(
    ui: AskLayout, run: Run, name: str, *, talking: bool = False, recorded: str = ""
) -> dict[Any, Any]:
    """A finished answer: every panel follows. `recorded`: the file of a recorded run."""
    said = f"Recorded earlier: {run.title}." if run.title else ""
    if run.answer.finish_reason == "cancelled":
        said = "Stopped."
    if dropped := run.answer.extra.get("dropped_turns"):
        said = f"{said} Oldest turns that no longer fit, and were left out: {dropped:.0f}.".strip()
    live = bool(run.pieces) and not run.title
    again = {ui.entry.again: gr.Button(visible=bool(run.title))}
    if live and not said:
        length = counted(len(run.pieces), "token")
        said = f"The answer has ended: {length}. {'' if talking else GO_ON}".strip()
    if any(not 0 <= weight <= 1 for weight in run.request.weights or ()):
        said = f"{BEYOND} {said}"
    out = ui.outcome
    return {
        **ended(ui, said, talking=talking, goes_on=live),
        **again,
        out.view: view_of_run(run, name),
        **_beside(ui, beside_text(run)),
        out.found: found_html(
            run.found,
            run.answer.evidence,
            asked=run.request,
            before=run.met,
            notes=run.answer.notes,
        ),
        out.timing: timing_html(run),
        out.takeaway: takeaway_of(run, recorded=recorded),
        out.downloads: gr.Row(visible=run.answer.trace is not None),
        ui.path: "",
        ui.run: run,
        **ui.token.closed(),
    }


def part_by_part(run: Run, count: int) -> str:
    """How a prompt with several tasks was answered; `run` is the last of so many answers."""
    several, reason = "The prompt asks for several things", run.answer.finish_reason
    if reason == "eos":
        return f"{several}: each was answered by its own adapters. The answer has ended."
    return f"{several}. The answer ended in part {count}: {ending(reason)}."


def beside_text(run: Run) -> str | None:
    """Return the base's answer, or a note where it is the answer itself; None: none."""
    if run.beside is None:
        return None
    same = not run.answer.adapters and run.beside.text == run.answer.text
    return SAME if same else whole_text(run.beside)


def whole_text(answer: Generation) -> str:
    """An answer's text, and where it was cut, that it was."""
    if answer.finish_reason != "length":
        return answer.text
    return f"{answer.text} … (cut at {counted(answer.new_tokens, 'token')}, the limit)"


def ended(ui: AskLayout, sentence: str, *, talking: bool, goes_on: bool = False) -> dict[Any, Any]:
    """The buttons as no answer is on its way, and one sentence; whatever was shown stays.

    `talking`: there are earlier turns; `goes_on`: there is an answer that one can ask on after.
    """
    buttons = _buttons(ui, running=False, talking=talking, goes_on=goes_on)
    return {**buttons, ui.outcome.notice: notice_html(sentence)}


def emptied(ui: AskLayout, *, talking: bool) -> dict[Any, Any]:
    """The buttons as at the start, where no answer came; the notice and what was typed stay."""
    view = {ui.outcome.view: empty_view(), ui.run: None}
    return {**_buttons(ui, running=False, talking=talking), **_beside(ui, None), **view}


def failed(ui: AskLayout) -> dict[Any, Any]:
    """As `emptied`, for `on_failure`."""
    view = {ui.outcome.view: empty_view(), ui.outcome.beside: ""}
    return {**freed(ui), **view, ui.outcome.beside_column: gr.update(visible=False)}


def freed(ui: AskLayout) -> dict[Any, Any]:
    """The buttons as no answer is on its way, for `on_failure`."""
    return {**free(ui.entry.ask, ui.entry.stop), ui.entry.new: gr.update(interactive=True)}


def _buttons(
    ui: AskLayout, *, running: bool, talking: bool, goes_on: bool = False
) -> dict[Any, Any]:
    _, stop = run_and_stop(running=running)
    return {
        ui.entry.ask: gr.Button("Ask on" if talking else "Ask", interactive=not running),
        ui.entry.stop: stop,
        ui.entry.on: gr.Checkbox(False, visible=goes_on and not talking),
        ui.entry.again: gr.Button(visible=False),
        ui.entry.new: gr.Button(visible=talking, interactive=not running),
        ui.entry.drop: gr.Checkbox(visible=talking),
    }


def _beside(ui: AskLayout, text: str | None) -> dict[Any, Any]:
    column = gr.Column(visible=text is not None)
    return {ui.outcome.beside: text or "", ui.outcome.beside_column: column}
