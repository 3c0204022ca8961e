"""Signs of life: which sessions with uploads are active, and since when others are silent.

Every call of a session is a sign of life, for as long as it lasts, and an open page gives one by
itself every now and then (`heartbeat`). A session that runs something is never silent. Nothing is
remembered of an owner without uploads, and of Gradio's sessions what `SessionStore` has room for.
"""

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import gradio as gr

from ..parts.events import open_page, outermost
from .owner import Visitor, owner_of, visitor_of
from .store import SessionStore

BEAT_SECONDS = 60
"""Heartbeat interval of an open page, the shortest that browsers allow a hidden tab."""
IDLE_SECONDS = 5 * 60
"""After so long without a sign of life, a session's uploads may make room for others'."""
GONE_SECONDS = 2 * 3600
"""After so long they go in any case: the browser was killed, or the client will not come back."""


class Presence:
    """The watched sessions; thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        """`clock` is monotonic, in seconds."""
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: dict[str, float] = {}
        self._calls: Counter[str] = Counter()
        self._left: set[str] = set()
        """Owners of whose pages one was closed."""
        self.sessions = SessionStore(clock=clock)
        """The store of Gradio's sessions."""

    @contextmanager
    def call(self, request: gr.Request | None) -> Iterator[Visitor]:
        """The owner of a call, alive inside the block."""
        visitor = visitor_of(request)
        session = getattr(request, "session_hash", None)
        if session and visitor.owner is not None:
            self.sessions.seen(session, visitor.address, visitor.owner)
        with self.alive(visitor.owner):
            yield visitor

    @contextmanager
    def alive(self, owner: str | None) -> Iterator[None]:
        """Count the session as alive inside the block."""
        if owner is None:
            yield
            return
        with self._lock:
            self._calls[owner] += 1
        try:
            yield
        finally:
            with self._lock:
                self._calls[owner] -= 1
                if not self._calls[owner]:
                    del self._calls[owner]
                self._note(owner)  # before anybody can think it silent

    def seen(self, owner: str | None) -> None:
        with self._lock:
            self._note(owner)

    def watch(self, owner: str) -> None:
        """Track this session's signs of life from now on, this being one."""
        with self._lock:
            self._seen[owner] = self._clock()

    def gone(self, session: str) -> str | None:
        """Note a closed or reloaded page; returns the owner whose uploads may go, if any."""
        owner = self.sessions.owner(session)
        self.sessions.leave(session)
        with self._lock:
            if owner in self._seen:
                self._left.add(owner)
                return owner
        return None

    def departed(self, seconds: float) -> list[str]:
        """Owners who closed a page, have none open, and were silent for so many seconds; each is
        returned once."""
        there = self.sessions.owners_there()
        with self._lock:
            waiting = list(self._left - there)
        over = [owner for owner in waiting if self.silent(owner) >= seconds]
        with self._lock:
            self._left -= there | set(over)
        return over

    def keep_only(self, owners: set[str]) -> None:
        with self._lock:
            self._seen = {owner: at for owner, at in self._seen.items() if owner in owners}
            self._left &= owners

    def silent(self, owner: str) -> float:
        """Seconds since its last sign of life, 0 while it runs something; infinite if unknown."""
        with self._lock:
            if owner in self._calls:
                return 0.0
            return self._clock() - self._seen.get(owner, -math.inf)

    def _note(self, owner: str | None) -> None:
        if owner in self._seen:
            self._seen[owner] = self._clock()


def heartbeat(presence: Presence) -> None:
    """Let the page that is being built give a sign of life by itself as long as it is open, and
    keep a stream open, by whose end it is missed."""

    def on_beat(request: gr.Request) -> None:
        presence.seen(owner_of(request))

    with outermost():
        timer = gr.Timer(BEAT_SECONDS)
    timer.tick(on_beat, queue=False, api_visibility="private", show_progress="hidden")
    open_page().unload(lambda: None)  # or clients of a page without states would open no stream


@dataclass(frozen=True)
class Use:
    """One owner's use: in the pool, and being added."""

    owner: str | None
    address: str
    """Network address of its last upload; '' where unknown."""
    adapters: int
    bytes: int
    silent: float | None
    """Seconds without a sign of life; None where it may not be evicted."""


def leavers(uses: Sequence[Use], *, size: int, adapters: int, bytes: int) -> list[str] | None:
    """Owners who leave, longest silent first, until one more upload of `size` bytes fits.

    `adapters` and `bytes` are what these uses may come to with it. None: it does not fit even
    where everybody leaves who may; then none is evicted.
    """
    count, total = sum(use.adapters for use in uses) + 1, sum(use.bytes for use in uses) + size
    gone: list[str] = []
    may_go = [use for use in uses if use.owner is not None and use.silent is not None]
    for use in sorted(may_go, key=lambda use: -(use.silent or 0.0)):
        if count <= adapters and total <= bytes:
            break
        assert use.owner is not None
        gone.append(use.owner)
        count, total = count - use.adapters, total - use.bytes
    return gone if count <= adapters and total <= bytes else None
