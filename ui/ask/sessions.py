"""Each visitor's last question: begin, stop, and its name in the browser."""

import secrets

from ..charts.run import Run, weight_of
from ..session.store import Drawer, SessionStore
from .answer import Live

MAX_TURNS = 24
"""Earlier turns whose tokens can still be looked into."""


class Sessions:
    """The last question of each session, and what its conversation said before."""

    def __init__(self, store: SessionStore):
        self._asked: Drawer[Live] = store.drawer(
            weigh=lambda one: weight_of(one.run), end=lambda one: one.cancelled.set()
        )
        self._earlier: Drawer[dict[str, Run]] = store.drawer(
            weigh=lambda runs: sum(map(weight_of, runs.values()))
        )

    def busy(self, session: str) -> bool:
        """Whether an answer is on its way."""
        asked = self._asked.get(session)
        return asked is not None and not asked.ended.is_set()

    def begin(self, session: str) -> Live:
        """A new question; the one before ends."""
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
