"""Close idle connections: slow requests, stalled readers, and too many of one client.

The server itself waits without limit for a request's head, and for a reader. Here every connection
is checked each second; one without progress for too long is cut.
"""

import threading
import time
from collections.abc import Callable, Hashable, Iterable
from contextlib import suppress
from typing import Any

from ..watch.events import CUT

HEAD_SECONDS = 20.0
"""Seconds for a whole head; the server allows fewer between two requests."""
READ_SECONDS = 60.0
"""Seconds in which a reader must take some of its pending bytes."""
POLL_SECONDS = 1.0
SPARE = 256
"""Files that the process may need beside connections."""
MAX_FILES = 65536


class Connections:
    """The watch over a server's connections; one thread calls `look`."""

    def __init__(
        self,
        connections: Callable[[], Iterable[Any]],
        *,
        most: int,
        clock: Callable[[], float] = time.monotonic,
    ):
        """`connections` gives uvicorn's protocols, of which `most` may be open."""
        self._connections, self._most, self._clock = connections, most, clock
        self._since: dict[Any, tuple[Hashable, float]] = {}

    def look(self) -> int:
        """Cut connections that are idle for too long, and beyond `most` the longest idle; returns
        how many."""
        now, since = self._clock(), {}
        for one in self._connections():
            state = _state(one)
            known = self._since.get(one)
            since[one] = known if known is not None and known[0] == state else (state, now)
        self._since = since
        idle = {one: (state, at) for one, (state, at) in since.items() if state is not None}
        late = [one for one, (state, at) in idle.items() if now - at > _patience(state)]
        for one in late:
            _cut(one, "slow" if idle[one][0][0] == "unread" else "waiting")
        waiting = sorted((one for one in idle if one not in late), key=lambda one: idle[one][1])
        crowd = waiting[: max(0, len(since) - len(late) - self._most)]
        for one in crowd:
            _cut(one, "crowd")
        return len(late) + len(crowd)


def watch_connections(server: Any) -> threading.Thread:
    """Watch uvicorn's `server` from a thread of its own, as long as it serves."""
    most = max(64, raise_files() - SPARE)
    watched = Connections(lambda: list(server.server_state.connections), most=most)

    def run() -> None:
        while not server.should_exit:
            time.sleep(POLL_SECONDS)
            watched.look()

    thread = threading.Thread(target=run, name="connections", daemon=True)
    thread.start()
    return thread


def raise_files() -> int:
    """Raise this process's limit of open files, within reason; returns it."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return MAX_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            return wanted
    return MAX_FILES if soft == resource.RLIM_INFINITY else soft


def _state(one: Any) -> tuple[Hashable, ...] | None:
    """The state that a connection idles in; None where it is active."""
    transport = one.transport
    if transport is None:
        return None
    if unread := transport.get_write_buffer_size():
        return ("unread", unread)
    cycle = getattr(one, "cycle", None)
    if cycle is None or cycle.response_complete:
        return ("waiting", cycle)  # itself: a number of it would be used again
    return None


def _patience(state: tuple[Hashable, ...] | None) -> float:
    return READ_SECONDS if state is not None and state[0] == "unread" else HEAD_SECONDS


def _cut(one: Any, reason: str) -> None:
    CUT.labels(reason).inc()
    with suppress(RuntimeError, AttributeError):  # it has just gone by itself
        one.loop.call_soon_threadsafe(one.transport.abort)
