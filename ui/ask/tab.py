"""The tab Ask: type a prompt, watch the answer arrive, click a token and see why."""

import secrets
from collections.abc import Generator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import gradio as gr

from ramole_core import Ramole, RamoleError

from ..charts.path import path_html
from ..charts.recorded import recorded_files, recorded_run, trace_files
from ..charts.run import Run
from ..model.spaces import ELSEWHERE, gpu
from ..parts import downloads
from ..parts.errors import one_sentence, sentence_of
from ..parts.events import AT_ONCE, CUT, QUIET, on_failure, open_page, place_in, session_of
from ..parts.fields import offered
from ..parts.markup import notice_html
from ..parts.prompts import LIVE
from ..session.quota import quota_of
from . import tags
from .answer import answer
from .conversation import continued
from .form import FIELDS, Form, form_of
from .layout import AskLayout, about_html, how
from .opening import Opening
from .talk import Talk
from .updates import NOT_ASKED, Updates, begun, done, emptied, ended, failed, freed, part_by_part

RUNNING = "An answer is on its way."
NONE = "There is no answer yet; ask something first."
SEE = """() => setTimeout(() => {
  document.querySelector('#path .path')?.scrollIntoView({ block: 'nearest' });
}, 100)"""


def tab(ramole: Ramole, run: gr.State | None = None) -> None:
    """Build the tab inside the Blocks that is open."""
    recorded = recorded_files()
    with gr.Tab("Ask", id="ask", elem_id="ask-tab") as ask_tab:
        titles = [recorded_run(path).title for path in recorded]
        live = [example.title for example in LIVE]
        ui = AskLayout(ramole, recorded=titles, live=live, run=run)
    _connect(ui, AskHandlers(ramole, ui, recorded), ask_tab)


class AskHandlers:
    def __init__(self, ramole: Ramole, ui: AskLayout, recorded: Sequence[Path]):
        self.ramole = ramole
        self.ui = ui
        self.recorded = recorded
        self.talk = Talk(ramole, ui)
        self.opening = Opening(ramole, ui, self.talk, recorded=recorded, show=self.recorded_run)
        self.call = quota_of(ramole).presence.call

    def on_how(self, method, k):
        """Another method or k: update the folded part."""
        entry, about = self.ui.entry, about_html(self.ramole, method)
        head = {entry.how: gr.Accordion(label=how(method, k)), entry.about: about}
        return {**head, **entry.options.shown(method), **entry.pairs.shown(method)}

    def on_begin(self, request: gr.Request, prompt, beside, run: Run | None, turns, on=False):
        """An empty answer, unless one is running; in a conversation, and with `on`, the last one
        joins those above."""
        return self._begin(request, {"prompt": prompt or ""}, beside, run, turns, bool(on))

    def on_begin_live(self, request: gr.Request, beside, event: gr.EventData):
        """As `on_begin`, for a prompt to try by the form's method; ends a conversation."""
        example = LIVE[place_in(event, len(LIVE))]
        most = min(example.max_new_tokens, self.ramole.settings.max_new_tokens)
        asked = {"prompt": example.prompt, "max_new_tokens": most, "raw": False}
        return self._begin(request, asked, beside, None, ())

    def on_begin_again(self, request: gr.Request, run: Run | None):
        """As `on_begin`, for the request of the shown recorded run, with its turns."""
        if run is None or self.talk.busy(session_of(request)):
            raise gr.Error(RUNNING, print_exception=False)
        form = form_of(run.request, beside=run.beside is not None)
        most = min(form.max_new_tokens, self.ramole.settings.max_new_tokens)
        turns, _ = self.talk.recorded(session_of(request), run, self.recorded)
        return self._begin(
            request, {**vars(form), "max_new_tokens": most}, form.beside, None, turns
        )

    def _begin(self, request: gr.Request, asked: dict[str, Any], beside, *before):
        session = session_of(request)
        if self.talk.busy(session):
            raise gr.Error(RUNNING, print_exception=False)  # ends the chain
        turns = self.talk.begun(session, *before)
        view = self.talk.view(session, turns, asked=asked["prompt"])
        return {**begun(self.ui, beside=bool(beside), turns=turns), **view, self.ui.asked: asked}

    def on_ask(
        self, request: gr.Request, turns, drop, instead, *values
    ) -> Generator[tuple[Any, ...], None, None]:
        """Yield updates of the answer, in the order of `AskLayout.growing`; `instead`: fields that
        are used in place of the form's."""
        session = session_of(request)
        asked = self.talk.begin(session)
        drawing = Updates(asked.name, turns)
        try:
            form = self.form(values, instead)
            with self.call(request) as visitor:
                pictures = answer(
                    self.ramole,
                    continued(form.request(visitor.owner), turns, drop=bool(drop)),
                    asked,
                    beside=form.beside,
                    address=visitor.address,
                )
                with closing(pictures):
                    for one in pictures:
                        yield drawing.picture(one) if one.run is None else drawing.end(one.run)
            if asked.run is None:
                yield drawing.wrong("Stopped.", kind="quiet")
        except Exception as error:
            yield drawing.wrong(sentence_of(error))
        finally:
            self.talk.ended(session, asked)

    def on_end(self, request: gr.Request, run: Run | None, turns, prompt, asked):
        """Every panel follows the answer; in a conversation the prompt is free for the next one."""
        if run is None:
            return emptied(self.ui, talking=bool(turns))
        typed = prompt != asked["prompt"]  # meanwhile, or before a prompt to try was pressed
        session = session_of(request)
        name, earlier = self.talk.name(session, run), self.talk.parts(session, run)
        if earlier:
            turns = self.talk.with_parts(session, earlier, turns)
            view = self.talk.view(session, turns, asked=run.request.prompt)
            shown = done(self.ui, run, name, talking=True)
            said = notice_html(part_by_part(run, len(earlier) + 1))
            shown |= {self.ui.turns: turns, self.ui.outcome.notice: said}
            return {**shown, **view, **({} if typed else {self.ui.entry.prompt: ""})}
        free = turns and run.pieces and not typed
        said = {self.ui.entry.prompt: ""} if free else {}
        return {**done(self.ui, run, name, talking=bool(turns)), **said}

    def on_stop(self, request: gr.Request):
        """Stop the answer; its stream ends with what came."""
        self.talk.stop(session_of(request))

    def on_stopped(self, turns):
        """As `end`, where the stream was cut."""
        talking = bool(turns)
        return {**emptied(self.ui, talking=talking), **ended(self.ui, "Stopped.", talking=talking)}

    def on_show_recorded(self, request: gr.Request, event: gr.EventData):
        """A recorded run in the place of the answer; what is typed and chosen stays, and the next
        question does not go on from it. A conversation ends with it; none is shown while an answer
        is on its way."""
        place = place_in(event, len(self.recorded))
        if self.talk.busy(session_of(request)):
            raise gr.Error(RUNNING, print_exception=False)
        self.talk.forget(session_of(request))
        self.ui.token.leave(session_of(request))
        return self.recorded_run(request, place)

    def recorded_run(self, request: gr.Request, place: int) -> dict[Any, Any]:
        """What shows the recorded run at this place."""
        path = self.recorded[place]
        run = recorded_run(path)
        view = self.talk.recorded(session_of(request), run, self.recorded)[1]
        shown = done(self.ui, run, secrets.token_hex(4), recorded=path.stem)
        return {**shown, self.ui.outcome.talk: view, self.ui.turns: ()}

    def on_take(self, request: gr.Request, run: Run | None):
        """The trace as files, with request and facts."""
        if run is None or run.answer.trace is None:
            raise gr.Error("There is no trace yet; ask something first.", print_exception=False)
        with one_sentence(), self.call(request) as visitor:
            return trace_files(self.ramole, run, visitor.owner)

    def on_watch(self, run: Run | None):
        """The path of the run in sight."""
        if run is None or not run.pieces:
            raise gr.Error(NONE, print_exception=False)
        with one_sentence():
            vector = ()
            with suppress(RamoleError):  # the picture stands without it
                vector = self.ramole.retriever.embed([run.request.prompt])[0]
            return path_html(run, vector)

    def on_names(self, request: gr.Request, pinned=(), exclude=(), mix=None):
        """What can be chosen by name; what was chosen and is gone is chosen no more."""
        with self.call(request) as visitor:
            names = sorted({card.name for card in self.ramole.pool.cards(visitor.owner)})
            mixes = self.ui.entry.pairs.mixes(self.ramole, visitor.owner)
        return offered(names, pinned), offered(names, exclude), offered(mixes, mix)

    def on_keep(self, request: gr.Request, run: Run | None, name: str):
        """The weights that were found for this answer get a name, and are chosen."""
        pairs = self.ui.entry.pairs
        if run is None:
            raise gr.Error(NONE, print_exception=False)
        with one_sentence(), self.call(request) as visitor:
            kept = self.ramole.keep_mix(name or "", run.answer, visitor.owner)
            if visitor.owner is not None:  # the mix goes with its session
                quota_of(self.ramole).presence.watch(visitor.owner)
            mixes = pairs.mixes(self.ramole, visitor.owner)
        return {pairs.mix: gr.Dropdown(choices=mixes, value=kept.name), pairs.name: ""}

    def form(self, values: Sequence[Any], instead: dict[str, Any]) -> Form:
        """The form, from the values of `AskInputs.values`, with these in place of its own.

        Raises RamoleError where an option is none.
        """
        said = dict(zip(FIELDS, values, strict=False)) | instead
        options = self.ui.entry.options
        said.setdefault("options", options.chosen(said["method"], values[len(FIELDS) :]))
        said |= self.ui.entry.pairs.chosen(said["method"], said["mix"], said["examples"])
        return Form(**said)


def _connect(ui: AskLayout, handlers: AskHandlers, ask_tab: gr.Tab) -> None:
    page, entry = open_page(), ui.entry
    options = entry.options
    about = [entry.how, entry.about, *options.groups.values(), options.fold, entry.pairs.group]
    gr.on(
        [entry.method.change, entry.k.change],
        handlers.on_how,
        [entry.method, entry.k],
        about,
        **AT_ONCE,
    )

    entry.pairs.connect()

    beside = entry.fields["beside"]
    begins = [*ui.answered, ui.asked]
    typed: list[Any] = [entry.prompt, beside, ui.run, ui.turns, entry.on]
    asks = [
        entry.ask.click(handlers.on_begin, typed, begins, **AT_ONCE),
        entry.live.select(handlers.on_begin_live, beside, begins, **AT_ONCE),
        entry.again.click(handlers.on_begin_again, ui.run, begins, **AT_ONCE),
    ]
    for begin in asks:
        begin.failure(None, js=NOT_ASKED, **AT_ONCE)
    on_ask = gpu(120)(handlers.on_ask)
    ends: list[Any] = [ui.run, ui.turns, entry.prompt, ui.asked]
    after: list[Any] = [entry.prompt, *ui.answered]
    running: list[Any] = [
        one.success(
            on_ask,
            [ui.turns, entry.drop, ui.asked, *entry.values],
            ui.growing,
            postprocess=False,
            concurrency_limit=None,
            **QUIET,
        )
        for one in asks
    ]
    for one in running:
        on_failure(one, ui.outcome.notice, failed(ui))
        over = one.then(handlers.on_end, ends, after, **AT_ONCE)
        on_failure(over, ui.outcome.notice, freed(ui))
    entry.stop.click(handlers.on_stop, **AT_ONCE)
    if ELSEWHERE:  # there no event reaches the answer: its stream is cut
        cut = entry.stop.click(None, js=CUT, cancels=running, **QUIET)
        cut.then(handlers.on_stopped, ui.turns, ui.answered, **QUIET)

    for runs in (entry.recorded, entry.more):
        runs.select(handlers.on_show_recorded, None, ui.answered, **QUIET)
    tags.connect(entry)
    downloads.connect([ui.outcome.npz, ui.outcome.json], handlers.on_take, ui.run)
    ui.token.connect(view=ui.outcome.view, run=ui.run)
    ui.token.what.connect(run=ui.run)
    watched = ui.watch.click(handlers.on_watch, ui.run, ui.path, **QUIET)
    watched.success(None, js=SEE, **QUIET)
    handlers.talk.connect()
    handlers.opening.connect()

    keep, pairs = [ui.run, entry.pairs.name], [entry.pairs.mix, entry.pairs.name]
    gr.on([entry.pairs.keep.click, entry.pairs.name.submit], handlers.on_keep, keep, pairs, **QUIET)

    names: list[Any] = [entry.fields["pinned"], entry.fields["exclude"], entry.pairs.mix]
    page.load(handlers.on_names, None, names, **QUIET)
    ask_tab.select(handlers.on_names, names, names, **QUIET)
