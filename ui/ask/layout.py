"""The layout of the tab Ask: form, examples and answer."""

from collections.abc import Sequence
from html import escape
from typing import Any

import gradio as gr
from gradio.components import Component

from ramole_core import DEFAULT_METHOD, Ramole

from ..charts.tokens import token_view
from ..parts.asked import counted
from ..parts.downloads import Download
from ..parts.events import HELD, PLAIN, QUIET
from ..parts.fields import k_field, length_field, method_field, untrained_html
from ..parts.prompts import placeholder
from .conversation import conversation_view
from .examples import example_choices
from .form import FIELDS, Form
from .found import beside_view, found_html
from .options import Options
from .pairs import Pairs
from .tags import tags_view
from .takeaway import takeaway_view
from .token_panel import TokenPanel

AGAIN = "Run this example now"
INSPECT = "() => window.ramoleTab?.('inspect')"
"""Opens the tab Inspect with the current answer."""
ON = "follow up on this answer"
DROP = "drop oldest turns that no longer fit"


class AskInputs:
    def __init__(self, ramole: Ramole, recorded: Sequence[str], live: Sequence[str]) -> None:
        start = Form()
        self.prompt = gr.Textbox(
            label="Prompt",
            placeholder=placeholder([card.name for card in ramole.pool.cards()]),
            lines=1,
            max_lines=12,
            autofocus=True,
            elem_id="prompt",
        )
        with gr.Column(elem_id="examples"):
            # The first recorded runs; `more` has the others.
            self.recorded, self.more, self.live = example_choices(recorded, live)
        with gr.Row(elem_id="ask-bar"):
            self.ask = gr.Button("Ask", variant="primary", elem_id="ask-button", min_width=110)
            self.stop = gr.Button("Stop", interactive=False, elem_id="stop-button", min_width=90)
            # Ends the conversation.
            self.new = gr.Button(
                "New conversation", visible=False, elem_id="new-button", min_width=150
            )
            # Whether the next question goes on from a first answer; in a conversation it always
            # does.
            self.on = gr.Checkbox(False, label=ON, visible=False, elem_id="on-box", container=False)
            beside = gr.Checkbox(
                start.beside,
                label="the base's own answer beside it",
                elem_id="beside-box",
                container=False,
            )
            # What is not as usual, to be removed.
            self.tags = tags_view()
            gr.HTML(HELD, elem_id="held", **PLAIN)
            # Whether the oldest turns may be dropped.
            self.drop = gr.Checkbox(
                False, label=DROP, visible=False, elem_id="drop-box", container=False
            )
        with gr.Accordion(how(start.method, start.k), open=False, elem_id="more") as self.how:
            with gr.Row():
                self.method = method_field(
                    ramole, value=start.method, elem_id="method", min_width=150
                )
                self.k = k_field(start.k, elem_id="k", min_width=150)
            self.about = gr.HTML(about_html(ramole, start.method), elem_id="about", **PLAIN)
            if block := untrained_html(ramole):
                gr.HTML(block, **PLAIN)
            self.options = Options(ramole, method=start.method)
            self.pairs = Pairs(ramole, method=start.method)
            box = _adapters() | _decoding(ramole, start) | _template()
        box |= {
            "prompt": self.prompt,
            "beside": beside,
            "method": self.method,
            "k": self.k,
            "examples": self.pairs.text,
        }
        box["mix"] = self.pairs.mix
        # In the order of `FIELDS`; the next three are among them.
        self.fields = {name: box[name] for name in FIELDS}
        # Runs the shown recorded prompt live.
        self.again = gr.Button(
            AGAIN, visible=False, size="sm", elem_id="again-button", render=False
        )

    @property
    def values(self) -> list[Component]:
        """Components of a request: `fields`, then the options' components."""
        return [*self.fields.values(), *self.options.components]


class Outcome:
    """The answer and the base's on the left, a token's panel on the right; what was found is beside
    the answer, and under it while a token is open (`style.css`)."""

    def __init__(self, ramole: Ramole, again: gr.Button, watch: gr.Button) -> None:
        # The earlier turns.
        self.talk = conversation_view(elem_id="talk")
        again.render()
        self.notice = gr.HTML(elem_id="notice", **PLAIN)
        with gr.Row(equal_height=False, elem_id="results"):
            with gr.Column(scale=7, min_width=300, elem_id="answers"):
                self.view = token_view(elem_id="answer")
                with gr.Column(visible=False) as self.beside_column:
                    self.beside = beside_view(elem_id="beside")
            with gr.Column(scale=5, min_width=300, elem_id="side"):
                self.token = TokenPanel(ramole)
            with gr.Column(scale=5, min_width=300, elem_id="after"):
                self.found = gr.HTML(found_html(()), elem_id="found", **PLAIN)
                # Copies a link, and Python.
                self.takeaway = takeaway_view(elem_id="takeaway")
                self.timing = gr.HTML(elem_id="timing", **PLAIN)
                with gr.Row(elem_id="downloads", visible=False) as self.downloads:
                    self.npz = Download("Trace as .npz", "trace-npz", min_width=120)
                    self.json = Download("Trace as .json", "trace-json", min_width=120)
                watch.render()
                inspect = gr.Button(
                    "Inspect this run", size="sm", elem_id="inspect-run", min_width=100
                )
                inspect.click(None, js=INSPECT, **QUIET)


class AskLayout:
    """The tab's components, built inside the Blocks that is open; `recorded` and `live` are the
    titles of its examples."""

    def __init__(
        self,
        ramole: Ramole,
        *,
        recorded: Sequence[str],
        live: Sequence[str],
        run: gr.State | None = None,
    ) -> None:
        self.entry = AskInputs(ramole, recorded, live)
        watch = gr.Button("Watch how it came about", size="sm", elem_id="watch", render=False)
        self.outcome = Outcome(ramole, self.entry.again, watch)
        self.token = self.outcome.token
        # How it came about, drawn when somebody wants to watch it.
        self.watch, self.path = watch, gr.HTML(elem_id="path", **PLAIN)
        # The finished run that is in sight, a `Run` or None.
        self.run = gr.State(None) if run is None else run
        # The earlier turns of the conversation, each a `Turn`.
        self.turns = gr.State(())
        # Fields of the current request in place of the form's, by name; the prompt at least.
        self.asked = gr.State({})
        # The page's address; invisible.
        self.told = gr.Textbox(visible=False)

    @property
    def answered(self) -> list[Any]:
        """The components that change when an answer begins and ends."""
        entry, out = self.entry, self.outcome
        head = [out.notice, entry.ask, entry.stop, out.view, out.beside, out.beside_column]
        head += [entry.on, entry.again, entry.new, entry.drop, out.talk, self.turns]
        rest = [out.found, out.timing, out.takeaway, out.downloads, self.path, self.run]
        return [*head, *rest, *self.token.all]

    @property
    def growing(self) -> list[Any]:
        """The components of a picture of an answer, and the run that the last one brings."""
        out = self.outcome
        return [out.notice, out.view, out.beside, out.found, self.run]


def how(method: str, k: float) -> str:
    """Title of the folded part of the form."""
    chosen = "the default method" if method == DEFAULT_METHOD else f"method {method}"
    return f"Settings: {chosen}, up to {counted(int(k), 'adapter')} (k), length"


def about_html(ramole: Ramole, name: str) -> str:
    """What a method does, in one line, and where it was published."""
    for method in ramole.methods():
        if method.name == name:
            said = f"{method.name}: {method.summary} ({method.paper})."
            return f'<p class="quiet">{escape(said)}</p>'
    return ""


def _adapters() -> dict[str, Component]:
    with gr.Row():
        return {
            "pinned": gr.Dropdown(
                [], value=[], multiselect=True, label="Exactly these adapters (k is then ignored)"
            ),
            "weights": gr.Textbox(
                label="Their weights, in place of the method's", placeholder="0.7, 0.3"
            ),
            "exclude": gr.Dropdown([], value=[], multiselect=True, label="Never these"),
            "mix_anyway": gr.Checkbox(False, label="Mix anyway where none fits"),
        }


def _decoding(ramole: Ramole, start: Form) -> dict[str, Component]:
    with gr.Row():
        return {
            "max_new_tokens": length_field(ramole, start.max_new_tokens),
            "temperature": gr.Slider(0, 2, 0, step=0.05, label="Temperature (0: greedy)"),
            "top_p": gr.Slider(0.05, 1, 1, step=0.05, label="Top-p"),
            "seed": gr.Textbox("", label="Seed", placeholder="by chance", max_lines=1),
        }


def _template() -> dict[str, Component]:
    with gr.Row():
        return {
            "system": gr.Textbox(label="System prompt", placeholder="the template's own"),
            "stop": gr.Textbox(label="Stop strings, one a line", lines=1, max_lines=4),
            "raw": gr.Checkbox(False, label="Continue the text as it is (no chat template)"),
        }
