"""The events of a conversation: continue, open an earlier turn, start anew."""

import re
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from ..charts.run import Run
from ..parts.events import AT_ONCE, QUIET, number_in, script_beside, session_of, text_in
from .conversation import Turn, recorded_talk, shortened, turn_of, view_of_conversation
from .examples import earlier_runs
from .layout import AskLayout
from .sessions import Sessions
from .token_panel import PICKS
from .updates import fresh

if TYPE_CHECKING:
    from ramole_core import Ramole

ENTER = script_beside(__file__, "enter.js")
"""Enter asks; while an answer is on its way, what is typed is kept and asked next."""
TYPE = "() => document.querySelector('#prompt textarea').focus()"
RECORDED = re.compile(r"recorded-\d{1,3}")
"""Name of an earlier turn of a recorded run."""
Turns = tuple[Turn, ...]


class Talk:
    """The conversations of all sessions, and their events."""

    def __init__(self, ramole: "Ramole", ui: AskLayout, sessions: Sessions):
        self.ramole, self.ui, self.sessions = ramole, ui, sessions

    def begun(self, session: str, run: Run | None, turns: Turns, on: bool = False) -> Turns:
        """The turns before the question that is asked now: the answer in sight joins those that are
        there, or with `on` becomes the first one; else it is a question of its own."""
        self.ui.token.leave(session)
        if turns or (on and run is not None and not run.title):
            return self._joined(session, run, turns)
        self.sessions.forget(session)
        return ()

    def view(self, session: str, turns: Turns, *, asked: str) -> dict[Any, Any]:
        """The turns as the browser draws them, and what is asked now."""
        view = view_of_conversation(
            turns, lambda name: self.sessions.earlier(session, name), asked=asked
        )
        return {self.ui.outcome.talk: view}

    def recorded(self, session: str, run: Run, files: Sequence[Path]) -> tuple[Turns, dict]:
        """The earlier turns of a recorded run, and how they look; those that are recorded
        themselves can be looked into."""
        earlier = earlier_runs(run, files)
        turns, view = recorded_talk(run, earlier)
        for place, one in earlier.items():
            self.sessions.keep(session, turns[place].name, shortened(one))
        return turns, view

    def on_new(self, request: gr.Request):
        """End the conversation."""
        session = session_of(request)
        self.ui.token.leave(session)
        self.sessions.forget(session)
        return fresh(self.ui)

    def on_pick(
        self, request: gr.Request, turns: Turns, event: gr.EventData
    ) -> Iterator[dict[Any, Any]]:
        """A token of an earlier turn is shown like one of the newest answer."""
        name = text_in(event, "run")
        numbers = {turn.name: number for number, turn in enumerate(turns, 1)}
        if not turns and RECORDED.fullmatch(name):  # the recorded chat that is seen first
            numbers = {name: int(name.rpartition("-")[2]) + 1}
        session, panel = session_of(request), self.ui.token
        run = self.sessions.earlier(session, name) if name in numbers else None
        panel.leave(session)
        if run is None:
            yield panel.gone()
        else:
            index, turn = number_in(event, "index"), numbers[name]
            yield from panel.picked(session, run, index, turn=turn)

    def connect(self) -> None:
        ui, entry = self.ui, self.ui.entry
        entry.prompt.submit(None, js=ENTER, **AT_ONCE)
        new = entry.new.click(self.on_new, None, ui.answered, **AT_ONCE)
        new.then(None, js=TYPE, **QUIET)
        ui.outcome.talk.select(
            self.on_pick,
            ui.turns,
            ui.token.all,
            concurrency_limit=PICKS,
            trigger_mode="multiple",
            **QUIET,
        )

    def with_parts(self, session: str, parts: Sequence[Run], turns: Turns) -> Turns:
        """The turns, and behind them the parts of a prompt that were answered before the last."""
        for run in parts:
            turns = self._joined(session, run, turns)
        return turns

    def _joined(self, session: str, run: Run | None, turns: Turns) -> Turns:
        if run is None or not run.pieces:
            return turns
        name = secrets.token_hex(4)
        self.sessions.keep(session, name, shortened(run))
        return (*turns, turn_of(run, name))
