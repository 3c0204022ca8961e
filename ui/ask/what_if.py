"""The part of a token's panel that changes something and lets the answer go on from there."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

import gradio as gr
from gradio.components import Component

from ramole_core import Explanation, Ramole, RamoleError

from ..charts.did import without_html
from ..charts.explained import spell
from ..charts.run import Run
from ..charts.tokens import empty_view, token_view
from ..model.spaces import gpu
from ..parts.errors import sentence_of
from ..parts.events import AT_ONCE, PLAIN, QUIET, session_of
from ..parts.fields import run_and_stop
from ..parts.markup import notice_html
from ..session.quota import quota_of
from ..session.store import Drawer
from .branch import Change, going_on, weights_at

NOTHING, ALL = "nothing", "all adapters"
EVERY = "every one"
MAX_WEIGHT = 1.5
"""The largest weight that the slider gives."""
TURN, HERE = "the beginning", "this token"
LEAD = (
    '<p class="quiet">Switch something off, move a weight, or take another token here: the answer '
    "keeps its tokens up to this one, and goes on. An adapter that is off since the "
    "beginning was never there: question and answer are read again without it, as for its effect."
    "</p>"
)


class WhatIf:
    """The components, built inside the panel that is open."""

    def __init__(self, ramole: Ramole) -> None:
        self.ramole, presence = ramole, quota_of(ramole).presence
        self.call = presence.call
        with gr.Accordion("What if …?", open=False, elem_id="what-if") as self.fold:
            gr.HTML(LEAD, **PLAIN)
            with gr.Row():
                self.adapter = gr.Dropdown(
                    [NOTHING], value=NOTHING, label="Switch off", elem_id="what-adapter",
                    min_width=130,
                )  # fmt: skip
                self.since = gr.Dropdown([TURN, HERE], value=TURN, label="since", min_width=150)
                self.layer = gr.Dropdown([EVERY], value=EVERY, label="in layer", min_width=90)
                self.module = gr.Dropdown([EVERY], value=EVERY, label="in module", min_width=90)
            # What the token would be without the adapter.
            self.measured = gr.HTML(elem_id="what-measured", **PLAIN)
            with gr.Row():
                self.moved = gr.Dropdown(
                    [NOTHING], value=NOTHING, label="Move the weight of", elem_id="what-moved",
                    min_width=130,
                )  # fmt: skip
                self.weight = gr.Slider(
                    0, MAX_WEIGHT, 0, step=0.05, label="to", elem_id="what-weight", min_width=130
                )
            self.token = gr.Dropdown(
                [(NOTHING, -1)], value=-1, label="Take another token here", elem_id="what-token"
            )
            with gr.Row():
                self.go = gr.Button("Answer from here", elem_id="what-go", min_width=140)
                self.stop = gr.Button("Stop", elem_id="what-stop", interactive=False, min_width=80)
            self.notice = gr.HTML(elem_id="what-notice", **PLAIN)
            self.view = token_view(elem_id="branch")
            self.likely = gr.HTML(elem_id="what-likely", **PLAIN)
        # Ends the answer that is on its way; what is not here any more is not drawn.
        self.running: Drawer[threading.Event] = presence.sessions.drawer(end=threading.Event.set)
        # Index of the token that is open, or None.
        self.picked = gr.State(None)
        # Text by number, of the tokens that can be taken.
        self.tokens = gr.State({})
        # The adapter whose weight the slider was set to.
        self.weighed = gr.State(NOTHING)

    @property
    def all(self) -> list[Component]:
        """The components that another token changes."""
        return [
            self.adapter, self.since, self.layer, self.module, self.measured, self.moved,
            self.weight, self.token, self.notice, self.view, self.likely, self.picked, self.tokens,
            self.weighed,
        ]  # fmt: skip

    def opened(self, run: Run, index: int) -> dict[Any, Any]:
        """For the token at `index`: what can be switched off there; nothing is changed yet."""
        trace = run.answer.trace
        layers = [] if trace is None else [str(layer) for layer in trace.layers]
        modules = [] if trace is None else list(trace.modules)
        adapters = [ALL, *run.experts] if run.experts else []
        return {
            self.adapter: gr.update(choices=[NOTHING, *adapters], value=NOTHING),
            self.since: TURN,
            self.measured: "",
            self.layer: gr.update(choices=[EVERY, *layers], value=EVERY),
            self.module: gr.update(choices=[EVERY, *modules], value=EVERY),
            self.moved: gr.update(choices=[NOTHING, *run.experts], value=NOTHING),
            self.weight: gr.update(value=0, info=""),
            self.weighed: NOTHING,
            **self.choices(None),
            **self._emptied(""),
            self.picked: index,
        }

    def choices(self, explanation: Explanation | None) -> dict[Any, Any]:
        """The tokens that can be taken: the likeliest of base and mixture."""
        likely: dict[int, str] = {}
        if explanation is not None:
            pairs = zip(explanation.mixture_ids, explanation.mixture, strict=False)
            others = zip(explanation.base_ids, explanation.base, strict=False)
            for number, (text, _) in [*pairs, *others]:
                likely.setdefault(int(number), text)
        choices = [(NOTHING, -1), *((spell(text), number) for number, text in likely.items())]
        return {self.token: gr.update(choices=choices, value=-1), self.tokens: likely}

    def on_go(
        self, request: gr.Request, run: Run | None, index, tokens, *chosen
    ) -> Iterator[dict[Any, Any]]:
        """Stream the answer from the token on, with the new likely tokens there."""
        session, cancelled = session_of(request), threading.Event()
        self.running.end_of(session)
        self.running.put(session, cancelled)
        try:
            change = change_of(chosen, tokens, run)
            if run is None or index is None:
                raise RamoleError("Pick a token of the answer first.")
            yield {**self._emptied("Answering from here…"), **self._buttons(running=True)}
            with self.call(request) as visitor:
                text = str(tokens[change.token]) if change.token is not None else ""
                looks = going_on(
                    self.ramole, run, index, change, cancelled, text=text, address=visitor.address
                )
                with closing(looks):
                    for look in looks:
                        if self.running.get(session) is not cancelled:
                            break
                        shown = {self.notice: notice_html(look.note, kind=look.kind)}
                        shown |= {} if look.view is None else {self.view: look.view}
                        yield shown | ({self.likely: look.likely} if look.likely else {})
        except Exception as error:
            yield self._emptied(sentence_of(error), kind="wrong")
        finally:
            cancelled.set()
        left = self.running.get(session) is not cancelled
        yield {**(self._emptied("") if left else {}), **self._buttons(running=False)}

    def on_moved(self, run: Run | None, index, name, weighed):
        """Set the slider to the adapter's weight at the token, once: the list says its value anew
        where Tab leaves it."""
        if name == weighed:
            return gr.skip(), name
        if run is None or index is None or name not in run.experts:
            return gr.update(value=0, info=""), name
        weight = weights_at(run, index)[name]
        info = f"here it is {weight:.2f}"
        return gr.update(value=min(max(weight, 0), MAX_WEIGHT), info=info), name

    def on_off(self, run: Run | None, index, adapter, since, layer, module):
        """Say what the token would be without the adapter; a part of one goes off at the token."""
        part = layer not in (None, EVERY) or module not in (None, EVERY)
        since, said = HERE if part else since, ""
        did = None if run is None or index is None else run.did(index)
        if run is not None and did is not None and adapter != NOTHING and since == TURN:
            gone = [e for e, name in enumerate(run.experts) if adapter in (ALL, name)]
            said = without_html(did, *gone) if gone else ""
        return since, said and f'<p role="status">{said}</p>'

    def on_stop(self, request: gr.Request):
        """Stop the answer with what came."""
        self.running.end_of(session_of(request))

    def leave(self, session: str) -> None:
        """End the running answer without further updates, since its token is closed."""
        self.running.drop(session)

    def connect(self, *, run: gr.State) -> None:
        """Connect the buttons and choices."""
        off = [self.adapter, self.since, self.layer, self.module]
        for one in off:
            one.input(self.on_off, [run, self.picked, *off], [self.since, self.measured], **QUIET)
        said = [run, self.picked, self.tokens, *off]
        said += [self.moved, self.weight, self.token]
        shown: list[Any] = [self.notice, self.view, self.likely, self.go, self.stop]
        self.go.click(gpu(120)(self.on_go), said, shown, concurrency_limit=None, **QUIET)
        said, shown = [run, self.picked, self.moved, self.weighed], [self.weight, self.weighed]
        self.moved.input(self.on_moved, said, shown, **QUIET)
        self.stop.click(self.on_stop, **AT_ONCE)

    def _emptied(self, sentence: str, *, kind: str = "busy") -> dict[Any, Any]:
        said = notice_html(sentence, kind=kind) if sentence else ""
        return {self.notice: said, self.view: empty_view(""), self.likely: ""}

    def _buttons(self, *, running: bool) -> dict[Any, Any]:
        go, stop = run_and_stop(running=running)
        return {self.go: go, self.stop: stop}


def change_of(chosen: Sequence[Any], tokens: Any, run: Run | None) -> Change:
    """The change that is chosen, checked against what there is; raises RamoleError."""
    adapter, since, layer, module, moved, weight, token = chosen
    experts = [] if run is None else run.experts
    off = adapter != NOTHING
    if (off and adapter not in (ALL, *experts)) or moved not in (NOTHING, *experts):
        raise RamoleError("That adapter is not in this answer; choose one of the list.")
    known = tokens if isinstance(tokens, dict) else {}
    if token not in (None, -1) and token not in known:
        raise RamoleError("That token is not among the likely ones; choose one of the list.")
    part = layer not in (None, EVERY) or module not in (None, EVERY)
    if off and part and since == TURN:
        raise RamoleError(
            "A layer or a module is switched off since this token; an adapter as a whole can be "
            "off since the beginning."
        )
    return Change(
        off,
        None if not off or adapter == ALL else str(adapter),
        None if not off or layer in (None, EVERY) else _whole(layer),
        None if not off or module in (None, EVERY) else str(module),
        None if moved == NOTHING else str(moved),
        0.0 if moved == NOTHING else _weight(weight),
        None if token in (None, -1) else int(token),
        off and since == TURN,
    )


def _weight(given: Any) -> float:
    number = isinstance(given, int | float) and not isinstance(given, bool)
    if not number or not 0 <= given <= MAX_WEIGHT:
        raise RamoleError(f"That weight is not a number from 0 to {MAX_WEIGHT}; move the slider.")
    return float(given)


def _whole(layer: Any) -> int:
    try:
        return int(layer)
    except (TypeError, ValueError):
        raise RamoleError("That layer is not a number; choose one of the list.") from None
