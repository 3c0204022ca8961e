"""The tab Compare: one prompt, two to four ways of answering it, side by side."""

from collections.abc import Generator, Sequence
from contextlib import closing
from html import escape
from typing import Any

import gradio as gr

from ramole_core import Ramole, RamoleError

from ..charts.did import whole_html
from ..charts.explained import token_html
from ..charts.run import Run, weight_of
from ..charts.tokens import empty_view
from ..model.spaces import ELSEWHERE, gpu
from ..parts.asked import counted, ending, mixed_words, verdict_html
from ..parts.errors import sentence_of
from ..parts.events import (
    AT_ONCE,
    CUT,
    EACH,
    QUIET,
    enter_of,
    free,
    number_in,
    on_failure,
    open_page,
    session_of,
    text_in,
)
from ..parts.fields import allowed_length, offered, run_and_stop, whole
from ..parts.link import absent_words, check_method, copies
from ..parts.markup import escaped, notice_html
from ..session.quota import quota_of
from ..session.store import Drawer
from .layout import CompareLayout
from .link import Column, ComparisonLink, link_to, read_link
from .run import ANSWERING, ColumnsUpdate, Compared, Comparison, compared

ENTER = enter_of("#compare-button", "#compare-held", "A comparison")
OPENED = """() => {
  const last = window.ramoleKept.get('ramole-compared');
  const told = /^#compare[?]q=./.test(location.hash) ? location.hash : last;
  window.ramoleCompares = { told, asks: told && location.hash.startsWith('#compare') };
  return [];
}"""
"""The part of the address for this tab as the page opens, or the comparison before a reload."""
TOLD = "() => [window.ramoleCompares.told]"
GO = """() => {
  const field = document.querySelector('#compare-prompt textarea');
  if (!window.ramoleCompares.asks || !field?.value) return;
  if (document.querySelector('#compare-notice .notice.wrong')) return;
  document.querySelector('#compare-button').click();
}"""
"""Script: run the comparison in the address, unless unreadable or text was typed."""
NOT_YET = (
    "A token can be opened once all answers have ended; where they have, the server has forgotten "
    "them: press Compare again."
)
KEEP = "(copied) => { if (copied?.link) window.ramoleKept.set('ramole-compared', copied.link); }"
RUNNING = "A comparison is on its way."
CHOICES = 4
"""Components of a column's choices."""


def tab(ramole: Ramole) -> None:
    """Build the tab inside the Blocks that is open."""
    with gr.Tab("Compare", id="compare", elem_id="compare-tab") as here:
        ui = CompareLayout(ramole)
    _connect(ui, CompareHandlers(ramole, ui), here)


class CompareHandlers:
    def __init__(self, ramole: Ramole, ui: CompareLayout):
        self.ramole, self.ui = ramole, ui
        presence = quota_of(ramole).presence
        self.call = presence.call
        self._asked: Drawer[Comparison] = presence.sessions.drawer(
            weigh=lambda asked: sum(map(weight_of, asked.runs)),
            end=lambda asked: asked.cancelled.set(),
        )

    def on_count(self, count):
        """Show so many columns."""
        return [gr.Column(visible=n < int(count)) for n in range(len(self.ui.columns))]

    def on_begin(self, request: gr.Request, prompt: str):
        """Empty columns under the question, unless one is running."""
        asked = self._asked.get(session_of(request))
        if asked is not None and not asked.ended.is_set():
            raise gr.Error(RUNNING, visible=False, print_exception=False)  # ends the chain
        ask, stop = run_and_stop(running=True)
        heads = {shown.head: "" for shown in self.ui.columns}
        above = {self.ui.above: asked_html(prompt or "")}
        return {self.ui.ask: ask, self.ui.stop: stop, self.ui.token: "", **above, **heads}

    def on_ask(self, request: gr.Request, *values) -> Generator[tuple[Any, ...], None, None]:
        """Stream updates of all columns, in the order of `CompareLayout.growing`."""
        session, asked, look = session_of(request), Comparison(), ColumnsUpdate("Stopped.")
        self._asked.put(session, asked)
        try:
            prompt, count, length, *choices = values
            length = whole(length, "The token limit")
            columns = columns_of(choices)[: int(count)]
            asked.link = link_to(ComparisonLink(prompt or "", length, tuple(columns)))
            with self.call(request) as visitor:
                requests = [
                    one.request(prompt, visitor.owner, max_new_tokens=length) for one in columns
                ]
                looks = compared(self.ramole, requests, asked, address=visitor.address)
                with closing(looks):
                    for look in looks:
                        yield self.drawn(look)
            kept = Compared(asked.name, tuple(asked.runs), asked.link)
            yield *self.drawn(look)[:-1], kept
        except Exception as error:
            yield self.wrong(sentence_of(error))
        finally:
            asked.ended.set()
            if self._asked.get(session) is asked:
                self._asked.put(session, asked)  # with what it weighs now

    def on_end(self, asked: Compared | None):
        """The buttons as at the start, and each column's settings."""
        ask, stop = run_and_stop(running=False)
        runs = () if asked is None else asked.runs
        heads = {shown.head: "" for shown in self.ui.columns}
        for shown, run in zip(self.ui.columns, runs, strict=False):
            if run is not None:
                heads[shown.head] = head_html(run)
        copied = copies("" if asked is None else asked.link)
        return {self.ui.ask: ask, self.ui.stop: stop, self.ui.copy: copied, **heads}

    def on_open(self, request: gr.Request, told: str):
        """Fill the form from the page's address, if that is for this tab."""
        try:
            asked = read_link(told)
            if asked is None:
                return {self.ui.notice: gr.skip()}
            with self.call(request) as visitor:
                there = {card.name for card in self.ramole.pool.cards(visitor.owner)}
            return self.filled(asked, there)
        except RamoleError as error:
            return {self.ui.notice: notice_html(str(error), kind="wrong")}

    def filled(self, asked: ComparisonLink, there: set[str]) -> dict[Any, Any]:
        """The form of a link, and a note on what is missing here; raises RamoleError for a method
        that the page does not have."""
        for one in asked.columns:
            check_method(self.ramole, one.method, "choose one above a column")
        length, shorter = allowed_length(self.ramole, asked.length)
        said: dict[Any, Any] = {
            self.ui.prompt: asked.prompt,
            self.ui.count: len(asked.columns),
            self.ui.length: length,
        }
        for shown, one in zip(self.ui.columns, asked.columns, strict=False):
            said |= dict(zip(shown.choices, one.here(there), strict=True))
        gone = absent_words(asked.missing(there), "compare")
        notice = notice_html(gone, kind="wrong") if gone else notice_html(shorter)
        return {**said, self.ui.notice: notice}

    def on_stop(self, request: gr.Request):
        """Stop all columns with what came."""
        self._asked.end_of(session_of(request))

    def on_pick(self, asked: Compared | None, event: gr.EventData):
        """Explain one token."""
        name, _, column = text_in(event, "run").rpartition("-")
        index = number_in(event, "index")
        if asked is None or name != asked.name or not column.isdecimal() or index is None:
            return notice_html(NOT_YET)
        run = {str(n): run for n, run in enumerate(asked.runs)}.get(column)
        if run is None or not 0 <= index < len(run.pieces):
            return ""
        where = f"Column {int(column) + 1}: {mixed_words(run.request)}"
        return f'<p class="quiet">{escape(where)}</p>{token_html(run, index, closable=False)}'

    def on_names(self, request: gr.Request, *chosen: Sequence[str]):
        """The adapters that can be chosen by name; what was chosen and is gone is chosen no
        more."""
        with self.call(request) as visitor:
            names = sorted({card.name for card in self.ramole.pool.cards(visitor.owner)})
        return [offered(names, each) for each in chosen or [()] * 2 * len(self.ui.columns)]

    def drawn(self, look: ColumnsUpdate) -> tuple[Any, ...]:
        """A look, in the order of `CompareLayout.growing`; columns without an answer are empty."""
        empty = [empty_view("") for _ in self.ui.columns[len(look.views) :]]
        kind = "busy" if look.share is not None or look.note.startswith(ANSWERING) else "quiet"
        return notice_html(look.note, kind=kind, share=look.share), *look.views, *empty, gr.skip()

    def wrong(self, sentence: str) -> tuple[Any, ...]:
        """No answers, with the reason."""
        return notice_html(sentence, kind="wrong"), *(empty_view("") for _ in self.ui.columns), None


def columns_of(choices: Sequence[Any]) -> list[Column]:
    """The columns' choices, as gradio passes them one after another."""
    return [Column(*choices[n : n + CHOICES]) for n in range(0, len(choices), CHOICES)]


def asked_html(prompt: str) -> str:
    """The question, which another text in the form does not change; nothing for an empty one."""
    said = f'<span class="who">You</span>{escaped(prompt)}'
    return f'<div class="talk"><p class="asked">{said}</p></div>' if prompt.strip() else ""


def head_html(run: Run) -> str:
    """A column's settings, decision and end."""
    answer = run.answer
    said = [f"<h3>{escape(mixed_words(run.request))}</h3>"]
    said += [f'<p class="quiet">{escape(note)}</p>' for note in answer.notes]
    taken = dict(zip(answer.adapters, answer.scores, strict=True))
    said.append(verdict_html(answer.evidence, run.request, taken))
    why = escape(ending(answer.finish_reason))
    said.append(f'<p class="quiet">{counted(answer.new_tokens, "token")}; {why}.</p>')
    if (did := run.did_all) is not None:
        said.append(whole_html(did, len(run.pieces)))
    return "".join(said)


def _connect(ui: CompareLayout, handlers: CompareHandlers, here: gr.Tab) -> None:
    page, columns = open_page(), ui.columns
    sight = [shown.column for shown in columns]
    ui.count.change(handlers.on_count, ui.count, sight, **AT_ONCE)
    ui.prompt.submit(None, js=ENTER, **AT_ONCE)
    heads = [shown.head for shown in columns]
    begun = [ui.ask, ui.stop, ui.token, ui.above, *heads]
    asked = ui.ask.click(handlers.on_begin, ui.prompt, begun, **AT_ONCE)
    running = asked.success(
        gpu(120)(handlers.on_ask),
        ui.values,
        ui.growing,
        postprocess=False,
        concurrency_limit=None,
        **QUIET,
    )
    freed, empty = free(ui.ask, ui.stop), {shown.view: empty_view("") for shown in columns}
    on_failure(asked, ui.notice)
    on_failure(running, ui.notice, {**freed, **empty})
    ended = [ui.ask, ui.stop, ui.copy, *heads]
    over = running.then(handlers.on_end, ui.asked, ended, **AT_ONCE)
    over.then(None, ui.copy, js=KEEP, **AT_ONCE)
    on_failure(over, ui.notice, freed)
    ui.stop.click(handlers.on_stop, **AT_ONCE)
    if ELSEWHERE:  # there no event reaches the answers: their stream is cut
        cut = ui.stop.click(None, js=CUT, cancels=[running], **QUIET)
        cut.then(handlers.on_end, ui.asked, ended, **AT_ONCE)
    for shown in columns:
        shown.view.select(handlers.on_pick, ui.asked, ui.token, **EACH)
    names = [part for shown in columns for part in (shown.adapters, shown.without)]
    named = page.load(handlers.on_names, None, names, js=OPENED, **QUIET)
    filled = [ui.notice, *ui.values]
    opened = named.then(handlers.on_open, ui.told, filled, js=TOLD, **QUIET)
    opened.then(None, js=GO, **QUIET)
    here.select(handlers.on_names, names, names, **QUIET)
