"""Gradio's memory of a session, reduced to its states and weighed in the store of sessions.

Gradio keeps a copy of every component for each session that ever called, 10,000 of them and nearly
a megabyte each, for links that this page does not offer, and evicts the least recently used, open
pages too. Here `SessionStore` decides which sessions are evicted.

Gradio keeps an event's messages until its client reads them, and a client need not. A session whose
messages weigh too much gets one sentence in their place, and its event ends.
"""

from collections import Counter, deque
from types import SimpleNamespace
from typing import Any

import gradio as gr
from gradio import route_utils, state_holder
from gradio.server_messages import ProcessCompletedMessage
from gradio.state_holder import SessionState

from .address import address_of
from .store import MIB, SessionStore

BOUNDLESS = 10**9
MAX_BYTES = 8 * MIB
"""Of one session."""
NUMBER_BYTES = 32
"""About Python's bytes for a number, and the overhead of a string or a list."""
UNREAD = "Nobody read the answer, so it was ended; ask again, and read what comes."
TOO_LARGE = f"The answer is larger than {MAX_BYTES // MIB} MiB, the most for one; ask for less."


class LittleState(SessionState):
    """A session's states, without the copy of each component's last value that Gradio keeps for
    links to a whole page."""

    def __init__(self, blocks: gr.Blocks):
        super().__init__(blocks)
        self.blocks_config.config_for_block = lambda *_: {}  # pyright: ignore

    def _update_config(self, key: int) -> None: ...

    def _update_value_in_config(self, key: int, value: Any) -> None: ...


def remember_little(page: gr.Blocks, sessions: SessionStore) -> None:
    """Patch Gradio, once the page is launched."""
    holder, queue = page.state_holder, page._queue
    state_holder.SessionState = LittleState  # what the holder makes
    holder.capacity = queue.pending_messages_per_session.max_size = BOUNDLESS
    # what a new session copies: the page's functions, and of its components none
    holder.blocks = SimpleNamespace(default_config=page.default_config, blocks={})  # pyright: ignore

    queue.send_message = Unread(queue, sessions).send  # pyright: ignore[reportAttributeAccessIssue]

    def leave(session: str) -> None:
        if session in holder.session_data:  # Gradio keeps it for an hour
            holder.session_data[session].state_data.clear()

    def forget(session: str) -> None:
        holder.session_data.pop(session, None)
        holder.time_last_used.pop(session, None)
        queue.pending_messages_per_session.pop(session, None)
        for event in queue.pending_event_ids_session.pop(session, ()):
            if event in queue.event_ids_to_events:
                queue.event_ids_to_events[event].alive = False  # nobody hears it any more

    sessions.left.append(leave)
    sessions.forgotten.append(forget)


def track_sessions(sessions: SessionStore) -> None:
    """Report the session of each Gradio event to the store, before Gradio keeps it."""
    compiled = getattr(route_utils.compile_gr_request, "inner", route_utils.compile_gr_request)

    def told(body, fn, username, request):
        made = request if request is not None else body.request
        sessions.seen(body.session_hash or "", address_of(getattr(made, "headers", None) or {}))
        return compiled(body, fn=fn, username=username, request=request)

    told.inner = compiled  # pyright: ignore[reportFunctionMemberAccess] one store a process
    route_utils.compile_gr_request = told


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
        """Gradio's `Queue.send_message`; ends the event where too many bytes are unread."""
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
            why = TOO_LARGE if sizes[-1] > MAX_BYTES else UNREAD
            while not messages.empty():
                messages.get_nowait()
            self._forget(session)
            self._send(event, ProcessCompletedMessage(output={"error": why}, success=False))
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
