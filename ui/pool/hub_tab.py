"""The folded part of the tab Pool for adapters on the Hub, and which fit."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import gradio as gr

from ramole_core import RamoleError

from ..parts.errors import one_sentence
from ..parts.events import PLAIN, QUIET
from ..parts.fields import run_and_stop
from ..parts.markup import escaped, notice_html
from .hub_run import NOT_ALLOWED, HubRun
from .hub_table import SHOW, table_html

if TYPE_CHECKING:
    from ramole_core import Ramole

FOLD = "Find on the Hub: adapters that others made for this base model"
OTHERS = "Another visitor began this search; only they can stop it."


class HubPart:
    """Its components, folded, inside the tab that is open."""

    def __init__(self, ramole: "Ramole") -> None:
        s = ramole.settings
        words = (
            f"Lists up to {s.hub_listed:,} adapters that name this base model, those downloaded "
            "most first. Their cards are read, and of their weights the header alone. Prompts find "
            "them from then on; the weights of one come when it is to answer, and are checked like "
            "every upload."
        )
        allowed = s.hub_adapters
        with gr.Accordion(FOLD, open=False, elem_id="pool-hub") as self.fold:
            gr.HTML(f"<p>{words if allowed else escaped(NOT_ALLOWED)}</p>", **PLAIN)
            with gr.Row(visible=allowed):
                self.find = gr.Button(
                    "Find adapters", size="sm", elem_id="pool-hub-find", min_width=140
                )
                self.stop = gr.Button(
                    "Stop", size="sm", interactive=False, elem_id="pool-hub-stop", min_width=90
                )
            self.notice = gr.HTML(elem_id="pool-hub-notice", **PLAIN)
            with gr.Row(visible=allowed):
                self.search = gr.Textbox(
                    label="Search the list",
                    placeholder="a task, an owner, a licence",
                    min_width=200,
                )
                self.show = gr.Dropdown(
                    SHOW, value=SHOW[0], label="Show of the list", min_width=150
                )
            self.table = gr.HTML(elem_id="pool-hub-table", **PLAIN)

    @property
    def filters(self) -> list[Any]:
        """In the order in which handlers take them."""
        return [self.search, self.show]


def connect_hub(ui: HubPart, ramole: "Ramole", call: Callable) -> None:
    """Every event of it."""
    run = HubRun(ramole)

    def shown(search: str, show: str) -> str:
        if not ramole.settings.hub_adapters:
            return ""
        return table_html(
            ramole.hub.rows(), ramole.hub.fetched(), search=(search or "")[:200], show=show
        )

    def on_show(search: str, show: str):
        with one_sentence():
            return shown(search, show)

    def on_find(search: str, show: str, request: gr.Request):
        with one_sentence(), call(request) as visitor:
            try:
                for sentence, kind in run.looks(visitor.owner):
                    busy = kind == "busy"
                    table = gr.skip() if busy else shown(search, show)
                    yield notice_html(sentence, kind=kind), table, *run_and_stop(running=busy)
            except RamoleError as refusal:
                said = notice_html(str(refusal), kind="wrong")
                yield said, gr.skip(), *run_and_stop(running=False)

    def on_stop(request: gr.Request):
        with one_sentence(), call(request) as visitor:
            return gr.skip() if run.stop(visitor.owner) else notice_html(OTHERS)

    gr.on(
        [ui.fold.expand, ui.search.change, ui.show.change],
        on_show,
        ui.filters,
        ui.table,
        trigger_mode="always_last",
        concurrency_id="list",
        **QUIET,
    )
    ui.find.click(
        on_find,
        ui.filters,
        [ui.notice, ui.table, ui.find, ui.stop],
        concurrency_limit=None,
        **QUIET,
    )
    ui.stop.click(on_stop, None, ui.notice, queue=False, **QUIET)
