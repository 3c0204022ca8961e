"""Removed uploads that can still be brought back: for a while, and by their own session alone.

They are not listed or retrieved. Their files still count as used room, and are deleted first where
room is needed. After the time, or with their session, they are deleted.
"""

import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ramole_core import AdapterRefused

UNDO_SECONDS = 120.0
"""Time in which a removal can be undone."""
MAX_REMOVED = 10
"""Removals of one session that are kept; beyond that the oldest cannot be undone."""
TOO_LATE = "That removal cannot be undone any more; upload the adapter again."


@dataclass(frozen=True)
class Removal:
    token: str
    """Secret by which its session restores it."""
    owner: str
    aside: Any
    """Result of `Pool.set_aside`: its card, its bytes, and a way to discard it."""
    until: float

    @property
    def name(self) -> str:
        return self.aside.card.name


class Removed:
    """All removals that can be undone; thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        """`clock` is monotonic, in seconds."""
        self._clock = clock
        self._lock = threading.Lock()
        self._held: dict[str, Removal] = {}

    def keep(self, aside: Any, owner: str, *, seconds: float | None = None) -> None:
        """Keep a removal for so many seconds."""
        until = self._clock() + (UNDO_SECONDS if seconds is None else seconds)
        removal = Removal(secrets.token_hex(8), owner, aside, until)
        with self._lock:
            self._held[removal.token] = removal
            mine = [one.token for one in self._held.values() if one.owner == owner]
        for token in mine[:-MAX_REMOVED]:
            self.drop(token)

    def expire(self) -> None:
        """Delete the files of removals that are over."""
        now = self._clock()
        with self._lock:
            over = [one.token for one in self._held.values() if one.until <= now]
        for token in over:
            self.drop(token)

    def of(self, owner: str | None) -> list[tuple[Removal, float]]:
        """The session's removals with the seconds that are left, latest first."""
        now = self._clock()
        with self._lock:
            held = [one for one in self._held.values() if one.owner == owner and one.until > now]
        return [(one, one.until - now) for one in reversed(held)]

    def take(self, token: str, owner: str | None) -> Removal:
        """The session's own removal of that name, which is then no longer kept here;
        AdapterRefused for any other."""
        with self._lock:
            removal = self._held.get(token)
            if removal is None or removal.owner != owner or removal.until <= self._clock():
                raise AdapterRefused(TOO_LATE)
            return self._held.pop(token)

    def give_back(self, removal: Removal) -> None:
        """Put back a removal that could not be undone, for the rest of its time."""
        self.keep(removal.aside, removal.owner, seconds=max(removal.until - self._clock(), 0.0))

    def drop(self, token: str) -> None:
        """Delete this one's files, if they are still here."""
        with self._lock:
            removal = self._held.pop(token, None)
        if removal is not None:
            removal.aside.discard()

    def drop_all(self, owner: str) -> None:
        """Delete the files of this session's removals."""
        for removal, _ in self.of(owner):
            self.drop(removal.token)
        self.expire()

    def sizes(self) -> list[tuple[str, int]]:
        """(owner, bytes) of each."""
        with self._lock:
            return [(one.owner, one.aside.bytes) for one in self._held.values()]
