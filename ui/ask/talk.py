"""The events of a conversation: continue, open an earlier turn, start anew."""

import re
import secrets
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from ramole_core import Ramole

from ..charts.run import Run, weight_of
from ..parts.events import AT_ONCE, QUIET, number_in, script_beside, session_of, text_in
from ..session.quota import quota_of
from ..session.store import Drawer
from .answer import Live
from .conversation import Turn, shortened, turn_of, turns_of, view_of_conversation
from .examples import earlier_runs
from .layout import AskLayout
from .token_panel import MAX_PICKS
from .updates import fresh

ENTER = script_beside(__file__, "enter.js")
"""Enter submits; while an answer is running, the text is kept and submitted next."""
TYPE = "() => document.querySelector('#prompt textarea').focus()"
RECORDED = re.compile(r"recorded-\d{1,3}")
"""Name of an earlier turn of a recorded run."""
Turns = tuple[Turn, ...]
MAX_TURNS = 24
"""Earlier turns whose tokens can still be inspected."""


class Talk:
    """The last answer of each session, and its conversation before that; with its events."""

    def __init__(self, ramole: Ramole, ui: AskLayout):
        self.ui, store = ui, quota_of(ramole).presence.sessions
        self._asked: Drawer[Live] = store.drawer(
            weigh=lambda one: weight_of(one.run), end=lambda one: one.cancelled.set()
        )
        self._earlier: Drawer[dict[str, Run]] = store.drawer(
            weigh=lambda runs: sum(map(weight_of, runs.values()))
        )

    def busy(self, session: str) -> bool:
        """Whether an answer is running."""
        asked = self._asked.get(session)
        return asked is not None and not asked.ended.is_set()

    def begin(self, session: str) -> Live:
        """Begin a new answer; the one before ends."""
        self.stop(session)
        asked = Live()
        self._asked.put(session, asked)
        return asked

    def stop(self, session: str) -> None:
        """End the session's answer; its own stream then ends, with what came."""
        self._asked.end_of(session)

    def ended(self, session: str, asked: Live) -> None:
        """Record the ended answer's size, where it is still the last one."""
        asked.ended.set()
        if self._asked.get(session) is asked:
            self._asked.put(session, asked)

    def keep(self, session: str, name: str, run: Run) -> None:
        """Keep an earlier turn; a long conversation drops the oldest runs."""
        earlier = {**(self._earlier.get(session) or {}), name: run}
        for old in list(earlier)[:-MAX_TURNS]:
            del earlier[old]
        self._earlier.put(session, earlier)

    def earlier(self, session: str, name: str) -> Run | None:
        """The run of an earlier turn of this session."""
        return (self._earlier.get(session) or {}).get(name)

    def forget(self, session: str) -> None:
        """Drop the conversation."""
        self._earlier.drop(session)

    def parts(self, session: str, run: Run) -> tuple[Run, ...]:
        """The runs of the parts before this one, where its prompt was answered part by part."""
        asked = self._asked.get(session)
        return asked.earlier if asked is not None and asked.run is run else ()

    def name(self, session: str, run: Run) -> str:
        """The name that the browser drew this run under, or a new one."""
        asked = self._asked.get(session)
        return asked.name if asked is not None and asked.run is run else secrets.token_hex(4)

    def begun(self, session: str, run: Run | None, turns: Turns, on: bool = False) -> Turns:
        """The turns before the current request: the answer in sight joins those that are there, or
        with `on` becomes the first one; else it is a question of its own."""
        self.ui.token.leave(session)
        if turns or (on and run is not None and not run.title):
            return self._joined(session, run, turns)
        self.forget(session)
        return ()

    def view(self, session: str, turns: Turns, *, asked: str) -> dict[Any, Any]:
        """The turns as the browser draws them, and the current prompt."""
        view = view_of_conversation(turns, partial(self.earlier, session), asked=asked)
        return {self.ui.outcome.talk: view}

    def recorded(self, session: str, run: Run, files: Sequence[Path]) -> tuple[Turns, dict]:
        """The earlier turns of a recorded run, and how they look; those that are recorded
        themselves can be looked into."""
        turns, earlier = turns_of(run.request.history, "recorded"), earlier_runs(run, files)
        runs = {turns[place].name: one for place, one in earlier.items()}
        for name, one in runs.items():
            self.keep(session, name, shortened(one))
        view = view_of_conversation(turns, runs.get, asked=run.request.prompt)
        return turns, {**view, "who": "Example"}

    def on_new(self, request: gr.Request):
        """End the conversation."""
        session = session_of(request)
        self.ui.token.leave(session)
        self.forget(session)
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
        run = self.earlier(session, name) if name in numbers else None
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
            concurrency_limit=MAX_PICKS,
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
        self.keep(session, name, shortened(run))
        return (*turns, turn_of(run, name))
