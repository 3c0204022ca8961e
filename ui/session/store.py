"""The store of all that the page keeps of Gradio's sessions.

A session is a name that a client invents, so there may be any number of them. Each has an address,
a weight in bytes, and perhaps an open stream: a page keeps its heartbeat open, and a client that
waits for an answer its events. Where there are too many sessions, or they weigh too much, in all or
from one address, those without a stream go first, and of these the ones that were used longest ago;
and everything that is kept of a session goes at once.
"""

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from .counts import shares

MIB = 2**20
MAX_SESSIONS = 2000
ADDRESS_SESSIONS = 250
"""Of one address, where it is known."""
MAX_BYTES = 512 * MIB
ADDRESS_BYTES = 32 * MIB
AGE_SECONDS = 3600.0
"""A session without a stream is forgotten after so long."""
T = TypeVar("T")


@dataclass
class Record:
    address: str = ""
    owner: str | None = None
    """Owner of its uploads."""
    used: float = 0.0
    streams: int = 0
    """Number of open streams."""
    beats: int = 0
    """Number of these that are heartbeats: open pages and clients."""
    parts: dict[int, Any] = field(default_factory=dict)
    """Values by drawer."""
    weights: dict[int, int] = field(default_factory=dict)


class SessionStore:
    """All sessions; thread-safe."""

    def __init__(
        self,
        *,
        sessions: tuple[int, int] = (ADDRESS_SESSIONS, MAX_SESSIONS),
        bytes: tuple[int, int] = (ADDRESS_BYTES, MAX_BYTES),
        clock: Callable[[], float] = time.monotonic,
    ):
        """The most of one address and of all together."""
        self._most = sessions, bytes
        self._clock = clock
        self._lock = threading.RLock()
        self._records: dict[str, Record] = {}
        self._drawers: list[Drawer[Any]] = []
        self._order: defaultdict[str, dict[str, None]] = defaultdict(dict)
        """By address and its prefixes, '' is all together: sessions, the one used last at the
        end."""
        self._weight: Counter[str] = Counter()
        """By the same: bytes."""
        self.left: list[Callable[[str], None]] = []
        """Called with each session that ends."""
        self.forgotten: list[Callable[[str], None]] = []
        """Called with each session that is no longer remembered."""

    def drawer(
        self,
        *,
        weigh: Callable[[T], int] = lambda one: 0,
        end: Callable[[T], None] = lambda one: None,
    ) -> "Drawer[T]":
        """A place for one value of each session: its `weigh` in bytes, and what `end`s it when the
        session leaves or is forgotten."""
        made = Drawer(self, len(self._drawers), weigh, end)
        self._drawers.append(made)
        return made

    def seen(self, session: str, address: str = "", owner: str | None = None) -> None:
        """Mark the session as just used."""
        if not session:
            return
        with self._lock:
            record = self._records.setdefault(session, Record(address))
            record.used, record.owner = self._clock(), owner or record.owner
            for key in _keys(record):
                self._order[key].pop(session, None)
                self._order[key][session] = None
            self._make_room(session)

    @contextmanager
    def stream(self, session: str, address: str = "", *, beats: bool = False) -> Iterator[None]:
        """A stream of the session is open inside the block; `beats`: it is a heartbeat."""
        self.seen(session, address)
        self._open(session, 1, beats)
        try:
            yield
        finally:
            self._open(session, -1, -beats)

    def is_there(self, session: str) -> bool:
        with self._lock:
            record = self._records.get(session)
            return record is not None and record.beats > 0

    def owner(self, session: str) -> str | None:
        """The owner of the session's uploads, where it has made a call."""
        with self._lock:
            record = self._records.get(session)
            return None if record is None else record.owner

    def owners_there(self) -> set[str]:
        """Owners of sessions that have a heartbeat."""
        with self._lock:
            records = self._records.values()
            return {one.owner for one in records if one.owner is not None and one.beats}

    def leave(self, session: str) -> None:
        """End a session: cancel what runs, and drop its values."""
        with self._lock:
            record = self._records.get(session)
            if record is not None:
                for drawer in self._drawers:
                    self._take(record, drawer)
                for tell in self.left:
                    tell(session)

    def sweep(self) -> None:
        """Forget sessions that have been without a stream and unused for too long."""
        with self._lock:
            before = self._clock() - AGE_SECONDS
            old = [n for n, one in self._records.items() if not one.streams and one.used < before]
            for session in old:
                self._forget(session)

    def __len__(self) -> int:
        return len(self._records)

    def __contains__(self, session: str) -> bool:
        return session in self._records

    @property
    def bytes(self) -> int:
        return self._weight[""]

    def _open(self, session: str, streams: int, beats: int) -> None:
        with self._lock:
            record = self._records.get(session)
            if record is not None:
                record.streams = max(0, record.streams + streams)
                record.beats = max(0, record.beats + beats)
                record.used = self._clock()

    def _put(self, session: str, drawer: "Drawer", value: Any) -> None:
        with self._lock:
            if session not in self._records:
                self.seen(session)
            record = self._records.get(session)
            if record is None:  # a caller without a session
                return
            self._weigh(record, drawer, value)
            record.parts[drawer.number] = value
            self._make_room(session)

    def _take(self, record: Record, drawer: "Drawer") -> None:
        value = record.parts.pop(drawer.number, None)
        self._weigh(record, drawer, None)
        if value is not None:
            drawer.end(value)

    def _weigh(self, record: Record, drawer: "Drawer", value: Any) -> None:
        weight = 0 if value is None else drawer.weigh(value)
        before = record.weights.pop(drawer.number, 0)
        if weight:
            record.weights[drawer.number] = weight
        for key in _keys(record):
            self._weight[key] += weight - before
            if not self._weight[key]:
                del self._weight[key]

    def _make_room(self, session: str) -> None:
        """Forget other sessions until all bounds hold; this one stays, even if too heavy alone."""
        bounds = [(key, n, 0) for key, n in shares(self._records[session].address)]
        for key, many, which in [*bounds, ("", 1, 1)]:
            sessions, size = (many * most[which] for most in self._most)
            while len(self._order[key]) > sessions or self._weight[key] > size:
                one = self._next(session, key)
                if one is None:
                    break
                self._forget(one)

    def _next(self, session: str, key: str) -> str | None:
        """The first session to evict of this prefix."""
        others = (name for name in self._order[key] if name != session)
        first = next(others, None)
        if first is None or not self._records[first].streams:
            return first
        return next((name for name in others if not self._records[name].streams), first)

    def _forget(self, session: str) -> None:
        self.leave(session)
        record = self._records.pop(session)
        for key in _keys(record):
            self._order[key].pop(session)
            if not self._order[key]:
                del self._order[key]
        for tell in self.forgotten:
            tell(session)


def _keys(record: Record) -> list[str]:
    return ["", *(key for key, _ in shares(record.address))]


class Drawer(Generic[T]):
    """One value of each session."""

    def __init__(
        self,
        store: SessionStore,
        number: int,
        weigh: Callable[[T], int],
        end: Callable[[T], None],
    ):
        self._store, self.number, self.weigh, self.end = store, number, weigh, end

    def get(self, session: str) -> T | None:
        """The session's value; None where there is none."""
        with self._store._lock:
            record = self._store._records.get(session)
            return None if record is None else record.parts.get(self.number)

    def put(self, session: str, value: T) -> None:
        """Set the session's value, with its current weight; the one before is not ended."""
        self._store._put(session, self, value)

    def end_of(self, session: str) -> None:
        """End the session's value, which stays to be looked at."""
        value = self.get(session)
        if value is not None:
            self.end(value)

    def drop(self, session: str) -> None:
        with self._store._lock:
            record = self._store._records.get(session)
            if record is not None:
                self._store._take(record, self)
