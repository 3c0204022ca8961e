"""The layout of the tab Pool: drop zones, filters, cards and details."""

from typing import Any, Literal

import gradio as gr

from ramole_core import Ramole

from ..parts.downloads import Download
from ..parts.events import PLAIN, enter_opens, script_beside
from ..session.uploads import EXAMPLE_ENDINGS
from .details import NOTHING, TRY, UNDO
from .hub import HubPart
from .map import PoolMap

SHOW = ["everything", "samples", "yours", "with notes"]
ORDER = ["name", "largest rank", "largest file", "newest"]
OPEN_CARD = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('.rm-open');
  if (!button) return;
  window.openedCard = button.dataset.name;
  trigger('click', {name: button.dataset.name});
});
"""
ADD = "Add your own LoRA: drop a zip, a folder or its files here, or press to open"
TYPED = "Example inputs, one a line; with empty lines between them, each may have several"


class Dropping:
    """The drop zone for adapters, with its verdicts."""

    def __init__(self, ramole: Ramole) -> None:
        limit, stays = ramole.settings.max_upload_mb, ramole.settings.shared_uploads
        fate = "Only this browser tab sees it, after a reload too; it goes when the tab is closed."
        fate = "Everyone can use it." if stays else fate
        with gr.Accordion(ADD, open=False, elem_id="pool-drop"):
            gr.HTML(
                "<p>A LoRA made with PEFT for this base model: a zip, a folder, or "
                "<code>adapter_model.safetensors</code> and <code>adapter_config.json</code> "
                f"together, up to {limit} MB. {fate} Files are checked, never run. It is found by "
                "the inputs in <code>examples.jsonl</code> (<code>{&quot;text&quot;: ...}</code> a "
                "line) or <code>examples.json</code> (a list of texts) beside them, or by those "
                "typed here.</p>",
                **PLAIN,
            )
            with gr.Row():
                self.files = _zone("Zips, or the two files", "multiple", "pool-files")
                self.folder = _zone("Or a folder", "directory", "pool-folder")
                with gr.Column(min_width=240, elem_id="pool-words"):
                    self.name = gr.Textbox(
                        label="Name (optional)", max_length=64, elem_id="pool-given-name"
                    )
                    self.lines = gr.Textbox(
                        label=f"{TYPED} (optional)",
                        placeholder="By these it is found; type them before you drop the file.",
                        lines=2,
                    )
            self.room = gr.HTML(elem_id="pool-room", **PLAIN)
        self.verdicts = gr.HTML(elem_id="pool-verdicts", js_on_load=TRY, **PLAIN)
        self.undo = gr.HTML(elem_id="pool-undo", js_on_load=UNDO, **PLAIN)


class Filters:
    """The filters and order of the cards."""

    def __init__(self) -> None:
        with gr.Row(elem_id="pool-filters"):
            self.search = gr.Textbox(
                label="Search", placeholder="a task, a module, a licence", scale=2, min_width=240
            )
            self.show = gr.Dropdown(SHOW, value=SHOW[0], label="Show", min_width=150)
            self.order = gr.Dropdown(ORDER, value=ORDER[0], label="Sort by", min_width=150)

    @property
    def all(self) -> list[Any]:
        """In the order in which handlers take them."""
        return [self.search, self.show, self.order]


class Giving:
    """The inputs for an upload's new examples."""

    def __init__(self) -> None:
        with gr.Accordion("Give it other examples", open=False, visible=False) as self.fold:
            self.lines = gr.Textbox(label=TYPED, lines=3)
            self.files = gr.File(
                label="Or .txt, .jsonl or .json files",
                file_count="multiple",
                file_types=list(EXAMPLE_ENDINGS),
                height=110,
            )
            self.give = gr.Button("Replace its examples", size="sm")
            self.given = gr.HTML(**PLAIN)


class Details:
    """One adapter's details and actions."""

    def __init__(self) -> None:
        self.name = gr.Dropdown(
            [], value=None, label="In detail", elem_id="pool-name", info="or press Details"
        )
        self.about = gr.HTML(NOTHING, elem_id="pool-detail", **PLAIN)
        self.command = gr.Textbox(
            label="The command that trained it",
            buttons=["copy"],
            interactive=False,
            visible=False,
            elem_id="pool-command",
            lines=2,
        )
        with gr.Row():
            self.download = Download("Download as zip", "pool-download", min_width=120)
            self.remove = gr.Button("Remove", size="sm", variant="stop", visible=False)
        self.giving = Giving()

    @property
    def shown(self) -> list[Any]:
        """The components that another adapter changes."""
        parts = [self.about, self.command, self.download.seen, self.remove]
        return [*parts, self.giving.fold, self.giving.given]


class PoolLayout:
    """The tab's components, built inside the Blocks that is open."""

    def __init__(self, ramole: Ramole) -> None:
        self.dropping = Dropping(ramole)
        self.hub, self.map, self.filters = HubPart(ramole), PoolMap(), Filters()
        with gr.Row(equal_height=False):
            with gr.Column(scale=3, min_width=320):
                dropped = "\n".join(script_beside(__file__, one) for one in ("zip.js", "drop.js"))
                script = OPEN_CARD + enter_opens("pool-tab") + dropped
                self.cards = gr.HTML(elem_id="pool-cards", js_on_load=script, **PLAIN)
            with gr.Column(scale=2, min_width=320):
                self.details = Details()


def _zone(label: str, count: Literal["multiple", "directory"], elem_id: str) -> gr.File:
    return gr.File(label=label, file_count=count, height=150, min_width=240, elem_id=elem_id)
