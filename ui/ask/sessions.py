"""Each visitor's last question: begin, stop, and its name in the browser."""

import secrets
from dataclasses import dataclass, field

from ..charts.run import Run, weight_of
from ..session.store import Drawer, SessionStore
from .answer import Live

MAX_TURNS = 24
"""Earlier turns whose tokens can still be looked into."""


@dataclass(frozen=True)
class Question:
    """A session's last question; Stop and a closed tab cancel it."""

    live: Live = field(default_factory=Live)
    name: str = field(default_factory=lambda: secrets.token_hex(4))
    """Of the run, for the browser."""


class Sessions:
    """The last question of each session, and what its conversation said before."""

    def __init__(self, store: SessionStore):
        self._asked: Drawer[Question] = store.drawer(
            weigh=lambda one: weight_of(one.live.run), end=lambda one: one.live.cancelled.set()
        )
        self._earlier: Drawer[dict[str, Run]] = store.drawer(
            weigh=lambda runs: sum(map(weight_of, runs.values()))
        )

    def busy(self, session: str) -> bool:
        """Whether an answer is on its way."""
        asked = self._asked.get(session)
        return asked is not None and not asked.live.ended.is_set()

    def begin(self, session: str) -> Question:
        """A new question; the one before ends."""
        self.stop(session)
        asked = Question()
        self._asked.put(session, asked)
        return asked

    def stop(self, session: str) -> None:
        """End the session's answer; its own stream then ends, with what came."""
        self._asked.end_of(session)

    def ended(self, session: str, asked: Question) -> None:
        """Record the ended answer's size, where it is still the last one."""
        asked.live.ended.set()
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
        return asked.live.earlier if asked is not None and asked.live.run is run else ()

    def name(self, session: str, run: Run) -> str:
        """The name that the browser drew this run under, or a new one."""
        asked = self._asked.get(session)
        return asked.name if asked is not None and asked.live.run is run else secrets.token_hex(4)
