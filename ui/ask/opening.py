"""The first content of the page: from its address, or from before a reload."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr

from ramole_core import Ramole, RamoleError

from ..parts.events import QUIET, open_page, script_beside, session_of
from ..parts.fields import allowed_length
from ..parts.link import (
    Link,
    absent_words,
    check_method,
    missing,
    read_link,
    unkept_mix_words,
    unkept_words,
)
from ..parts.markup import notice_html
from ..session.quota import quota_of
from .conversation import turns_of
from .form import form_of, unkept
from .layout import AskLayout
from .talk import Talk
from .updates import ended

SCRIPT = script_beside(__file__, "opening.js")
GO = """() => {
  const opened = window.ramoleOpened;
  if (!opened?.waits) return;
  const fine = !document.querySelector('#notice .notice.wrong');
  if (fine && /[?&]r=/.test(opened.told)) document.querySelector('#ask-button').click();
  setTimeout(() => { opened.waits = false; }, 300);
}"""
"""Script: run the request in the address, unless it is unreadable."""
UNKNOWN = "This link opens a recorded run that this page does not have."
ANEW = "It was drawn by chance without a seed, so another answer comes."


class Opening:
    """The handler, and the event it belongs to."""

    def __init__(
        self,
        ramole: Ramole,
        ui: AskLayout,
        talk: Talk,
        *,
        recorded: Sequence[Path],
        show: Callable[[gr.Request, int], dict[Any, Any]],
    ):
        """`show` gives what shows one of the recorded runs, by its place."""
        self.ramole, self.ui, self.talk = ramole, ui, talk
        self.recorded, self.show = recorded, show
        self.call = quota_of(ramole).presence.call

    def on_open(self, request: gr.Request, fragment: str) -> dict[Any, Any]:
        """The form, filled in from the address; without a request in it, a recorded run beside an
        empty form."""
        if self.talk.busy(session_of(request)):
            return {self.ui.outcome.notice: gr.skip()}  # a request came before this
        try:
            link = read_link(str(fragment or ""))
            if link is None:
                return self.first(request)
            if link.recorded:
                return self._recorded(request, link.recorded)
            return self._from_link(request, link)
        except RamoleError as error:
            return {self.ui.outcome.notice: notice_html(str(error), kind="wrong")}

    def first(self, request: gr.Request) -> dict[Any, Any]:
        """Show the first recorded run; the next request does not continue it."""
        ui = self.ui
        if not self.recorded:
            return {ui.outcome.notice: gr.skip()}
        shown = self.show(request, 0)
        shown[ui.outcome.takeaway] |= {"first": True}
        return shown

    def _recorded(self, request: gr.Request, name: str) -> dict[Any, Any]:
        places = [n for n, path in enumerate(self.recorded) if _slug(path.stem) == _slug(name)]
        if not places:
            raise RamoleError(UNKNOWN)
        return self.show(request, places[0])

    def _from_link(self, request: gr.Request, link: Link) -> dict[Any, Any]:
        asked, ui, entry = link.request, self.ui, self.ui.entry
        assert asked is not None
        check_method(self.ramole, asked.method, "choose another under Settings")
        length, said = allowed_length(self.ramole, asked.max_new_tokens)
        asked = replace(asked, max_new_tokens=length)
        form = form_of(asked, beside=link.beside)
        with self.call(request) as visitor:
            there = [card.name for card in self.ramole.pool.cards(visitor.owner)]
            mixes = entry.pairs.mixes(self.ramole, visitor.owner)
        gone = [absent_words(missing(asked, there), "ask"), unkept_words(unkept(form, asked))]
        if asked.mix is not None and asked.mix not in mixes:
            gone.append(unkept_mix_words(asked.mix, "ask"))
        values: dict[Any, Any] = {part: getattr(form, name) for name, part in entry.fields.items()}
        for name in ("pinned", "exclude"):
            values[entry.fields[name]] = gr.update(
                choices=there, value=[one for one in getattr(form, name) if one in there]
            )
        kept = asked.mix if asked.mix in mixes else None
        values[entry.fields["mix"]] = gr.update(choices=mixes, value=kept)
        values |= entry.options.filled(form.method, dict(form.options))
        turns = turns_of(asked.history, "link", set(there))
        anew = ANEW if asked.temperature and asked.seed is None else ""
        said = " ".join(filter(None, (said, anew)))
        shown = {
            **ended(ui, said, talking=bool(turns)),
            entry.drop: gr.Checkbox(asked.drop_turns, visible=bool(turns)),
            ui.run: None,
            ui.turns: turns,
            **self.talk.view(session_of(request), turns, asked=asked.prompt),
        }
        if any(gone):
            shown[ui.outcome.notice] = notice_html(" ".join(filter(None, gone)), kind="wrong")
        return {**values, **shown}

    def connect(self) -> None:
        """Run `on_open` with the page's address once it is open."""
        ui = self.ui
        opened = open_page().load(
            self.on_open,
            ui.told,
            [*ui.entry.values, *ui.answered],
            js=SCRIPT,
            **QUIET,
        )
        opened.then(None, js=GO, **QUIET)


def _slug(name: str) -> str:
    """A recorded run's name without its number, which changes with the order."""
    return name.partition("-")[2]
