"""One token in detail: contributions and weights by layer and module, likely alternatives."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr
from gradio.components import Component

from ramole_core import Explanation, Ramole, Request

from ..charts.explained import PICK, explanation_html, token_html, waiting_html
from ..charts.plots import token_figure, token_table
from ..charts.run import Run
from ..parts.errors import html_or_sentence
from ..parts.events import EACH, PLAIN, QUIET, number_in, session_of
from ..session.quota import quota_of
from ..session.store import Drawer
from .what_if import WhatIf

TOP = 10
MAX_PICKS = 16
"""Picks that are handled at the same time; most need no model."""
ASKING = threading.Lock()
"""One explanation at a time, so that others' streams continue between two."""
CLOSE = """
const panel = () => element.closest('#token-panel');
const close = () => {
  panel().classList.add('away');
  document.querySelector('#ask-tab .token[aria-pressed="true"]')?.focus();
};
element.addEventListener('click', (event) => { if (event.target.closest('.close')) close(); });
// before a list of choices sees the key: it closes itself alone
document.addEventListener('keydown', (event) => {
  const at = document.activeElement;
  const listed = at?.getAttribute('aria-expanded') === 'true';
  if (event.key === 'Escape' && !listed && panel()?.contains(at)) close();
}, true);
const show = () => panel()?.classList.remove('away');
watch('value', show);
// the same token once more: its value is as it was, so that nothing is there to watch
document.addEventListener('picked', (event) => { if (event.target.closest('#ask-tab')) show(); });
"""
"""The panel goes away until a token is picked."""
GONE = "The trace of this earlier answer is no longer kept, so its tokens cannot be opened."
NOT_YET = (
    "A token can be opened once its answer has ended; where it has, the server has forgotten it: "
    "ask again."
)
TABLE = "Contributions and weights as a table"
CAPTION = (
    '<p class="caption">Each square is one module (to the right) of one layer (upwards); the '
    "fuller its colour, the more the adapter contributed there when this token was chosen: the "
    "length of its weighted update beside that of the module's whole output. Blank: it has no such "
    "module.</p>"
)


class TokenPanel:
    """The panel's components.

    They are always there, and hidden by the style sheet until `token` has a heading: a part that is
    mounted as its first value arrives may miss it.
    """

    def __init__(self, ramole: Ramole) -> None:
        self.ramole, sessions = ramole, quota_of(ramole).presence.sessions
        with gr.Column(elem_id="token-panel"):
            self.token = gr.HTML(PICK, elem_id="token", js_on_load=CLOSE, **PLAIN)
            with gr.Column(elem_classes=["detail"]):
                self.likely = gr.HTML(elem_id="likely", **PLAIN)
                self.plot = gr.Plot(show_label=False, elem_id="token-plot", container=False)
                gr.HTML(CAPTION, **PLAIN)
            with gr.Column(elem_classes=["detail"]):
                self.what = WhatIf(ramole)
            with gr.Accordion(TABLE, open=False, elem_classes=["detail"]):
                self.table = gr.Dataframe(interactive=False, show_label=False, max_height=320)
        # The token that was picked last, and of which request's answer.
        self.latest: Drawer[tuple[int | None, Request]] = sessions.drawer(
            weigh=lambda picked: len(picked[1].prompt)
        )

    @property
    def all(self) -> list[Component]:
        """The components that a pick changes."""
        return [self.token, self.plot, self.likely, self.table, *self.what.all]

    def connect(self, *, view: gr.HTML, run: gr.State) -> None:
        """Show a token picked in `view`: the trace at once, the model's explanation later, unless
        another one was picked meanwhile."""
        picked = view.select(self.on_pick, run, self.all, **EACH)
        picked.then(
            self.on_shown,
            [run, self.what.picked],
            [self.likely, self.what.token, self.what.tokens],
            concurrency_limit=MAX_PICKS,
            trigger_mode="always_last",
            **QUIET,
        )

    def on_pick(self, request: gr.Request, run: Run | None, event: gr.EventData):
        """Show the trace's values of a token of the newest answer; what runs from another one
        ends."""
        session, index = session_of(request), number_in(event, "index")
        here = self.here(session, run, index)
        if run is not None:
            if not here():
                self.what.leave(session)
            self.latest.put(session, (index, run.request))
        shown = self.shown(run, index)
        return shown if run is None or here() else {self.token: gr.skip()}

    def on_shown(self, request: gr.Request, run: Run | None, index: int | None):
        """The model's explanation, while it is the token that was picked last."""
        here = self.here(session_of(request), run, index)
        said = self.said(run, index, here=here) if here() else {}
        return said if said and here() else {self.likely: gr.skip()}

    def here(self, session: str, run: Run | None, index: int | None) -> Callable[[], bool]:
        """Whether this is still the token that was picked last."""
        return lambda: run is not None and self.latest.get(session) == (index, run.request)

    def leave(self, session: str) -> None:
        """Forget the token that was picked last, and end what runs from it."""
        self.latest.drop(session)
        self.what.leave(session)

    def picked(
        self, session: str, run: Run, index: int | None, *, turn: int
    ) -> Iterator[dict[Any, Any]]:
        """The trace's values, and then the model's explanation, while it is the token that was
        picked last; `turn` as for `token_html`."""
        self.latest.put(session, (index, run.request))
        here = self.here(session, run, index)
        yield self.shown(run, index, turn=turn)
        if (said := self.said(run, index, here=here)) and here():
            yield said

    def shown(self, run: Run | None, index: int | None, *, turn: int = 0) -> dict[Any, Any]:
        """The trace's values of a token of the answer."""
        if run is None or index is None or not 0 <= index < len(run.pieces):
            return {self.token: waiting_html(NOT_YET)}
        known = run.explained.get(index)
        return {**self.opened(run, index, turn=turn), self.likely: _likely(known, run, index)}

    def said(
        self,
        run: Run | None,
        index: int | None,
        *,
        here: Callable[[], bool] = lambda: True,
    ) -> dict[Any, Any]:
        """The model's explanation; nothing where all of it was recorded, or where it is no longer
        `here` once the model is free."""
        if run is None or index is None or not 0 <= index < len(run.pieces):
            return {}
        known = run.explained.get(index)
        if known is not None and not (self.ramole.loaded and not known.mixture_ids):
            return {}
        with ASKING:
            if not here():
                return {}
            said, live = explain(self.ramole, run, index)
        shown = {self.likely: said} if known is None else {}  # what was recorded stays
        return {**shown, **self.what.choices(live)}

    def opened(self, run: Run, index: int, *, turn: int = 0) -> dict[Any, Any]:
        """Everything about one token that the trace holds."""
        token = {self.token: token_html(run, index, turn=turn), **self.what.opened(run, index)}
        if turn:  # an earlier turn is over
            token[self.what.picked] = None
        if not run.experts or index >= len(run.gates):
            return {**token, self.plot: None, self.table: gr.Dataframe(value=[])}
        headers, rows = token_table(run, index)
        return {
            **token,
            self.plot: token_figure(run, index),
            self.table: gr.Dataframe(value=rows, headers=headers),
        }

    def gone(self) -> dict[Any, Any]:
        """The panel for a token of an earlier turn whose run is no longer kept."""
        return {self.token: waiting_html(GONE)}

    def closed(self) -> dict[Any, Any]:
        """The panel before any token is picked."""
        return {self.token: PICK, self.likely: ""}


def explain(ramole: Ramole, run: Run, index: int) -> tuple[str, Explanation | None]:
    """The likeliest tokens there, as HTML, or one sentence on why not; and as they are."""
    trace = run.answer.trace
    if trace is None or not ramole.loaded:
        told = "What else was likely is shown once the model is there; pick again."
        return waiting_html(told), None
    known: list[Explanation] = []

    def asked() -> str:
        ids = [*run.before, *trace.token_ids]
        position = len(run.before) + trace.prompt_length + index - 1
        found = ramole.explain(run.request, position, top=TOP, token_ids=ids)
        known.append(found)
        return explanation_html(found, _chosen(run, index))

    said = html_or_sentence(asked, waiting_html)
    return said, known[0] if known else None


def _likely(explanation: Explanation | None, run: Run, index: int) -> str:
    if explanation is None:
        return waiting_html("Asking base and mixture what else was likely here…")
    return explanation_html(explanation, _chosen(run, index))


def _chosen(run: Run, index: int) -> str:
    """The token's own text, which may differ from the piece it added to the answer."""
    trace = run.answer.trace
    return trace.tokens[trace.prompt_length + index] if trace else run.pieces[index]
