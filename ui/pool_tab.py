"""The tab Pool: what is there, one adapter in detail, and a place to drop your own."""

from pathlib import Path
from typing import TYPE_CHECKING

import gradio as gr
from gradio.context import Context
from gradio.utils import get_upload_folder

from ramole_core import AdapterRefused

from .bundle import write_bundle
from .download_button import behind
from .errors import one_sentence
from .pool_views import NOTHING, added, detail, listing, replace_examples
from .presence import heartbeat
from .quota import forget, quota_of
from .session import owner_of
from .uploads import EXAMPLE_ENDINGS

if TYPE_CHECKING:
    from ramole_core import Ramole

SHOW = ["everything", "samples", "yours", "with notes"]
ORDER = ["name", "largest rank", "largest file", "newest"]
OPEN_CARD = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('.rm-open');
  if (!button) return;
  window.openedCard = button.dataset.name;
  trigger('click', {name: button.dataset.name});
});
document.addEventListener('keydown', (event) => {  // Gradio's drop zones heed Space alone
  if (event.key !== 'Enter' || !event.target.matches('#pool-tab .upload-container')) return;
  event.preventDefault();
  event.target.click();
});
"""
SHOW_DETAIL = """
() => { setTimeout(() => {
  const title = document.querySelector('#pool-detail .rm-detail-title');
  if (!title || title.textContent !== window.openedCard) return;
  window.openedCard = null;
  title.focus({preventScroll: true});
  title.scrollIntoView({block: 'nearest'});
}, 100); }
"""
SAVE_ZIP = """
() => { setTimeout(() => {
  const root = document.querySelector('#pool-zip');
  (root.matches('a, button') ? root : root.querySelector('a, button')).click();
}, 200); }
"""


def tab(ramole: "Ramole") -> None:
    """Build the tab inside the Blocks that is open, and free a session's uploads when it ends."""
    quota = quota_of(ramole)
    call = quota.presence.call
    limit = ramole.settings.max_upload_mb
    stays = ramole.settings.shared_uploads
    fate = "Everyone can use it." if stays else "Only this session sees it, and it is gone after."
    page = Context.root_block
    plain = {"apply_default_css": False}

    with gr.Tab("Pool", id="pool", elem_id="pool-tab") as pool_tab:
        with gr.Accordion("Add your own", open=True, elem_id="pool-drop"):
            gr.HTML(
                "<p>A LoRA made with PEFT for this base model: a zip, a folder, or "
                "<code>adapter_model.safetensors</code> and <code>adapter_config.json</code> "
                f"together, up to {limit} MB. {fate} Files are checked, never run.</p>",
                **plain,
            )
            with gr.Row():
                drop = gr.File(
                    label="Zips, or the two files",
                    file_count="multiple",
                    height=150,
                    min_width=240,
                    elem_id="pool-files",
                )
                folder = gr.File(
                    label="Or a folder",
                    file_count="directory",
                    height=150,
                    min_width=240,
                    elem_id="pool-folder",
                )
                with gr.Column(min_width=240, elem_id="pool-words"):
                    new_name = gr.Textbox(label="Name (optional)", max_length=64)
                    new_lines = gr.Textbox(
                        label="Example inputs, one a line (optional)",
                        placeholder="By these it is found; type them before you drop the file.",
                        lines=2,
                    )
            verdicts = gr.HTML(elem_id="pool-verdicts", **plain)
            room = gr.HTML(elem_id="pool-room", **plain)
        with gr.Row(elem_id="pool-filters"):
            search = gr.Textbox(
                label="Search", placeholder="a task, a module, a licence", scale=2, min_width=240
            )
            show = gr.Dropdown(SHOW, value=SHOW[0], label="Show", min_width=150)
            order = gr.Dropdown(ORDER, value=ORDER[0], label="Sort by", min_width=150)
        with gr.Row(equal_height=False):
            with gr.Column(scale=3, min_width=320):
                cards = gr.HTML(elem_id="pool-cards", js_on_load=OPEN_CARD, **plain)
            with gr.Column(scale=2, min_width=320):
                name = gr.Dropdown(
                    [], value=None, label="In detail", elem_id="pool-name", info="or press Details"
                )
                about = gr.HTML(NOTHING, elem_id="pool-detail", **plain)
                command = gr.Textbox(
                    label="The command that trained it",
                    buttons=["copy"],
                    interactive=False,
                    visible=False,
                    elem_id="pool-command",
                    lines=2,
                )
                with gr.Row():
                    download = gr.Button("Download as zip", size="sm", interactive=False)
                    remove = gr.Button("Remove", size="sm", variant="stop", visible=False)
                archive = behind("zip", "pool-zip")
                with gr.Accordion("Give it other examples", open=False, visible=False) as giving:
                    lines = gr.Textbox(label="Example inputs, one a line", lines=3)
                    texts = gr.File(
                        label="Or .txt or .jsonl files",
                        file_count="multiple",
                        file_types=list(EXAMPLE_ENDINGS),
                        height=110,
                    )
                    give = gr.Button("Replace its examples", size="sm")
                    given = gr.HTML(**plain)

    def on_list(search, show, order, chosen_name, request: gr.Request):
        with one_sentence(), call(request) as visitor:
            owner = visitor.owner
            names = list(dict.fromkeys(card.name for card in ramole.pool.cards(owner)))
            kept = chosen_name if chosen_name in names else None
            html = listing(ramole, quota, search, show, order, owner=owner)
            return html, gr.Dropdown(names, value=kept), f"<p>{quota.sentence(owner)}</p>"

    def on_search(search, show, order, request: gr.Request):
        with one_sentence(), call(request) as visitor:
            return listing(ramole, quota, search, show, order, owner=visitor.owner)

    def on_open(event: gr.EventData):
        wanted = event._data.get("name") if isinstance(event._data, dict) else None
        return wanted if isinstance(wanted, str) else None

    def on_choose(chosen_name, request: gr.Request):
        with one_sentence(), call(request) as visitor:
            owner = visitor.owner
            html, trained_by = detail(ramole, quota, chosen_name, owner=owner)
            own = bool(chosen_name) and quota.owns(ramole.pool.card(chosen_name, owner), owner)
            return (
                html,
                gr.Textbox(trained_by, visible=bool(trained_by)),
                gr.Button(interactive=bool(chosen_name)),
                gr.Button(visible=own),
                gr.Accordion(visible=own),
                "",
            )

    def on_drop(paths, new_name, new_lines, request: gr.Request):
        with one_sentence(), call(request) as visitor:
            steps = added(
                ramole,
                quota,
                paths,
                name=new_name,
                lines=new_lines,
                owner=visitor.owner,
                address=visitor.address,
            )
            html, all_good = "", False
            for html, all_good in steps:  # noqa: B007
                yield html, gr.skip(), gr.skip(), gr.skip()
            typed = ("", "") if all_good else (gr.skip(), gr.skip())
            yield html, None, *typed

    def on_download(chosen_name, request: gr.Request):
        with one_sentence(), call(request) as visitor:
            card = ramole.pool.card(chosen_name, visitor.owner)
            return str(write_bundle(card.folder, card.name, into=Path(get_upload_folder())))

    def on_remove(chosen_name, request: gr.Request):
        with one_sentence(), call(request) as visitor:
            if not chosen_name:
                raise AdapterRefused("No adapter is chosen; choose one of yours first.")
            quota.remove(chosen_name, visitor.owner)
            gr.Info(f"{chosen_name} is removed.")

    def on_examples(chosen_name, lines, texts, request: gr.Request):
        with one_sentence(), call(request) as visitor:
            given = replace_examples(
                ramole, quota, chosen_name, lines, texts or (), owner=visitor.owner
            )
            return given, "", None

    def on_leave(request: gr.Request):
        forget(ramole, owner_of(request))

    hidden = {"api_visibility": "private", "show_progress": "hidden"}
    pooled = {**hidden, "concurrency_id": "pool"}
    listed = {**hidden, "concurrency_id": "list"}  # in turn, or an older list could come last
    filters = [search, show, order]
    seen = {"fn": on_list, "inputs": [*filters, name], "outputs": [cards, name, room], **listed}
    shown = [about, command, download, remove, giving, given]

    heartbeat(quota.presence)
    page.load(**seen)
    page.unload(on_leave)
    pool_tab.select(**seen)
    changed = [search.change, show.change, order.change]
    gr.on(changed, on_search, filters, cards, trigger_mode="always_last", **listed)
    cards.click(on_open, None, name, **hidden).then(None, js=SHOW_DETAIL)
    name.change(on_choose, name, shown, **hidden).then(None, js=SHOW_DETAIL)
    for zone in (drop, folder):
        zone.upload(
            on_drop,
            [zone, new_name, new_lines],
            [verdicts, zone, new_name, new_lines],
            api_visibility="private",
            show_progress="minimal",
            concurrency_id="pool",
        ).success(**seen)
    download.click(on_download, name, archive, **pooled).success(None, js=SAVE_ZIP)
    remove.click(on_remove, name, None, **pooled).success(**seen)
    give.click(on_examples, [name, lines, texts], [given, lines, texts], **pooled).success(**seen)
