"""Weigh Gradio's messages that nobody has read yet, in the store of sessions.

Gradio keeps an event's messages until its client reads them, and a client need not. A session whose
messages weigh too much gets one sentence in their place, and its event ends.
"""

from collections import Counter, deque
from typing import Any

from gradio.server_messages import ProcessCompletedMessage

from .address import address_of
from .store import MIB, SessionStore

MAX_BYTES = 8 * MIB
"""Of one session."""
NUMBER_BYTES = 32
"""About what Python takes for a number, and for the rest of a string or a list."""
UNHEARD = "Nobody read the answer, so it was ended; ask again, and read what comes."


class Unread:
    """The messages of each session in Gradio's queue."""

    def __init__(self, queue: Any, sessions: SessionStore):
        self._queue, self._sessions = queue, sessions
        self._sizes: dict[str, deque[int]] = {}
        self._bytes: Counter[str] = Counter()
        self._drawer = sessions.drawer(weigh=int)
        self._send = queue.send_message
        sessions.forgotten.append(self._forget)

    def send(self, event: Any, message: Any) -> None:
        """Gradio's `Queue.send_message`; ends the event where too much waits for its reader."""
        if not event.alive:
            return
        self._send(event, message)
        session = event.session_hash
        messages = self._queue.pending_messages_per_session[session]
        if session not in self._sessions:
            self._sessions.seen(session, address_of(event.request.headers))
        sizes = self._sizes.setdefault(session, deque())
        sizes.append(size_of(getattr(message, "output", None)))
        self._bytes[session] += sizes[-1]
        while len(sizes) > messages.qsize():
            self._bytes[session] -= sizes.popleft()
        if self._bytes[session] > MAX_BYTES:
            while not messages.empty():
                messages.get_nowait()
            self._forget(session)
            self._send(event, ProcessCompletedMessage(output={"error": UNHEARD}, success=False))
            event.alive = False
        self._drawer.put(session, self._bytes[session])

    def _forget(self, session: str) -> None:
        self._sizes.pop(session, None)
        self._bytes.pop(session, None)


def size_of(value: Any) -> int:
    """About how many bytes a message's output takes."""
    if isinstance(value, str):
        return NUMBER_BYTES + len(value)
    if isinstance(value, dict):
        return NUMBER_BYTES + sum(size_of(key) + size_of(one) for key, one in value.items())
    if isinstance(value, list | tuple):
        return NUMBER_BYTES + sum(map(size_of, value))
    return NUMBER_BYTES
