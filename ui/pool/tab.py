"""The tab Pool: the adapters, one in detail, and uploads."""

import gradio as gr

from ramole_core import AdapterRefused, Ramole

from ..parts import downloads
from ..parts.asked import counted
from ..parts.errors import one_sentence
from ..parts.events import QUIET, open_page, text_in
from ..session.presence import heartbeat
from ..session.quota import quota_of
from ..session.uploads import EXAMPLE_ENDINGS, taken
from .cards import cards_html, matching
from .declared import examples_from_file, examples_from_lines
from .details import (
    NOTHING,
    card_text,
    details_html,
    removals_html,
    training_command,
    verdict_html,
    write_bundle,
)
from .hub import connect_hub
from .intake import judge, near
from .layout import PoolLayout
from .map import connect_map

SHOW_DETAIL = """
() => { setTimeout(() => {
  const title = document.querySelector('#pool-detail .rm-detail-title');
  if (!title || title.textContent !== window.openedCard) return;
  window.openedCard = null;
  title.focus({preventScroll: true});
  title.scrollIntoView({block: 'nearest'});
}, 100); }
"""
FOCUS = """
() => { setTimeout(() => document.querySelector('#pool-undo .rm-undo')?.focus(), 150); }
"""
UNUSED = (
    "<p>A name and examples are for one adapter at a time, so what is typed was not used; it stays "
    "for the next one.</p>"
)


def tab(ramole: Ramole) -> None:
    """Build the tab inside the Blocks that is open."""
    with gr.Tab("Pool", id="pool", elem_id="pool-tab") as pool_tab:
        ui = PoolLayout(ramole)
    _connect(ui, PoolHandlers(ramole), pool_tab)


class PoolHandlers:
    """What happens on each event of the tab; a failure is one sentence."""

    def __init__(self, ramole: Ramole):
        self.ramole = ramole
        self.quota = quota_of(ramole)
        self.call = self.quota.presence.call

    def on_list(self, search, show, order, name, request: gr.Request):
        """Cards, names, the room that is left, and what can be undone; the choice only where it is
        gone, as another may have been made meanwhile."""
        with one_sentence(), self.call(request) as visitor:
            owner = visitor.owner
            names = list(dict.fromkeys(card.name for card in self.ramole.pool.cards(owner)))
            gone = name and name not in names
            choice = gr.Dropdown(names, value=None) if gone else gr.Dropdown(names)
            room = f"<p>{self.quota.sentence(owner)}</p>"
            removed = removals_html(self.quota.removed.of(owner))
            return self.listing(search, show, order, owner), choice, room, removed

    def on_search(self, search, show, order, request: gr.Request):
        """The cards alone."""
        with one_sentence(), self.call(request) as visitor:
            return self.listing(search, show, order, visitor.owner)

    def listing(self, search: str, show: str, order: str, owner: str | None) -> str:
        """The cards that match, as HTML."""
        cards = self.ramole.pool.cards(owner)
        yours = {card.key for card in cards if self.quota.owns(card, owner)}
        found = matching(cards, search=search or "", show=show, order=order, yours=yours)
        return cards_html(found, yours=yours, total=len(cards))

    def on_open(self, event: gr.EventData):
        """The name on the card that was pressed."""
        return text_in(event, "name") or None

    def on_choose(self, name, request: gr.Request):
        """One adapter in detail, the values of `Details.shown`; or none."""
        with one_sentence(), self.call(request) as visitor:
            owner = visitor.owner
            card = self.ramole.pool.card(chosen_name(name), owner) if name else None
            own = card is not None and self.quota.owns(card, owner)
            command = training_command(card.folder) if card is not None and card.sample else ""
            return (
                NOTHING if card is None else self.detail(card.name, owner),
                gr.Textbox(command, visible=bool(command)),
                gr.Button(interactive=card is not None),
                gr.Button(visible=own),
                gr.Accordion(visible=own),
                "",
            )

    def detail(self, name: str, owner: str | None) -> str:
        """One adapter in detail, as HTML."""
        card = self.ramole.pool.card(name, owner)
        text, yours = card_text(card.folder), self.quota.owns(card, owner)
        return details_html(card, near(self.ramole, card, owner), yours=yours, card_text=text)

    def on_drop(self, paths, name, lines, request: gr.Request):
        """The verdicts as they come; then the zone is empty, and so are words that were used."""
        with one_sentence(), self.call(request) as visitor:
            name, lines = (text if isinstance(text, str) else "" for text in (name, lines))
            name, examples = name.strip(), examples_from_lines(lines)
            verdicts = judge(
                self.ramole,
                self.quota,
                paths or (),
                owner=visitor.owner,
                address=visitor.address,
                name=name or None,
                examples=examples,
            )
            html, shown, good, used = "", "", True, False
            for number, verdict in enumerate(verdicts, start=1):
                shown += verdict.as_html()
                good = good and verdict.card is not None
                unused = number > 1 and bool(name or examples)
                used = good and not unused
                html = f'<div role="status">{shown}{UNUSED if unused else ""}</div>'
                yield html, gr.skip(), gr.skip(), gr.skip()
            typed = ("", "") if used else (gr.skip(), gr.skip())
            yield html, None, *typed

    def on_download(self, name, request: gr.Request):
        """The adapter as a zip."""
        with one_sentence(), self.call(request) as visitor:
            card = self.ramole.pool.card(chosen_name(name), visitor.owner)
            return str(write_bundle(card.folder, card.name))

    def on_remove(self, name, request: gr.Request):
        """Remove one of the session's own, and its verdicts."""
        with one_sentence(), self.call(request) as visitor:
            self.quota.remove(chosen_name(name), visitor.owner, keep=True)
            return ""

    def on_undo(self, event: gr.EventData, request: gr.Request):
        """Restore one of the session's own."""
        with one_sentence(), self.call(request) as visitor:
            self.quota.undo(text_in(event, "token"), visitor.owner)

    def on_examples(self, name, lines, files, request: gr.Request):
        """Replace the examples of one of the session's own, in its details too."""
        with one_sentence(), self.call(request) as visitor:
            name, owner = chosen_name(name), visitor.owner
            self.quota.owned(name, owner)
            examples = examples_from_lines(lines if isinstance(lines, str) else "")
            with taken(files or ()) as texts:
                for text in texts:
                    if text.suffix.lower() not in EXAMPLE_ENDINGS:
                        raise AdapterRefused(
                            f"{text.name} is no .txt, .jsonl or .json file of examples."
                        )
                    examples += examples_from_file(text)
            if not examples:
                raise AdapterRefused(
                    "No example is given; type one a line, or drop a file of them."
                )
            card = self.ramole.pool.set_examples(name, examples, owner=owner)
            said = f"Its vector is now made from {counted(len(card.texts), 'input')}."
            return verdict_html(card.name, "usable", said), "", None, self.detail(name, owner)


def chosen_name(name: object) -> str:
    """The name of the adapter that is chosen; raises AdapterRefused where that is no name."""
    if not name or not isinstance(name, str):
        raise AdapterRefused("No adapter is chosen; choose one first.")
    return name


def _connect(ui: PoolLayout, handlers: PoolHandlers, pool_tab: gr.Tab) -> None:
    page, filters, dropping, details = open_page(), ui.filters, ui.dropping, ui.details
    name, giving = details.name, details.giving

    def listed(event):  # in turn, or an older list could come last
        inputs, outputs = [*filters.all, name], [ui.cards, name, dropping.room, dropping.undo]
        return event(handlers.on_list, inputs, outputs, concurrency_id="list", **QUIET)

    listed(page.load)
    listed(pool_tab.select)
    gr.on(
        [each.change for each in filters.all],
        handlers.on_search,
        filters.all,
        ui.cards,
        trigger_mode="always_last",
        concurrency_id="list",
        **QUIET,
    )
    opened = ui.cards.click(handlers.on_open, None, name, trigger_mode="multiple", **QUIET)
    opened.then(None, js=SHOW_DETAIL)
    name.change(handlers.on_choose, name, details.shown, **QUIET).then(None, js=SHOW_DETAIL)
    for zone in (dropping.files, dropping.folder):
        words = [dropping.name, dropping.lines]
        taken = zone.upload(
            handlers.on_drop,
            [zone, *words],
            [dropping.verdicts, zone, *words],
            api_visibility="private",
            show_progress="minimal",
            concurrency_id="pool",
        )
        listed(taken.success)
    downloads.connect([details.download], handlers.on_download, name)
    removed = details.remove.click(
        handlers.on_remove, name, dropping.verdicts, concurrency_id="pool", **QUIET
    )
    listed(removed.success).then(None, js=FOCUS)
    undone = dropping.undo.click(handlers.on_undo, None, None, concurrency_id="pool", **QUIET)
    listed(undone.then)  # and where it was too late, the line goes
    given = giving.give.click(
        handlers.on_examples,
        [name, giving.lines, giving.files],
        [giving.given, giving.lines, giving.files, details.about],
        concurrency_id="pool",
        **QUIET,
    )
    listed(given.success)
    connect_map(ui.map, handlers.ramole, handlers.quota, handlers.call)
    connect_hub(ui.hub, handlers.ramole, handlers.call)
    heartbeat(handlers.quota.presence)
