"""Reduce Gradio's memory of a session to its states, without a copy of the page.

Gradio keeps a copy of every component for each session that ever called, 10,000 of them and nearly
a megabyte each, for links that this page does not offer, and forgets the ones used longest ago,
whoever sits before them. Here `SessionStore` says which sessions are forgotten.
"""

from types import SimpleNamespace

import gradio as gr
from gradio import route_utils

from .address import address_of
from .store import SessionStore
from .unread import Unread

BOUNDLESS = 10**9


def remember_little(page: gr.Blocks, sessions: SessionStore) -> None:
    """Patch Gradio, once the page is launched."""
    holder, queue = page.state_holder, page._queue
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
