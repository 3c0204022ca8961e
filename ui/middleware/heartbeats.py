"""Track sessions' open streams and closed pages, for the session store.

A page and gradio_client keep a heartbeat stream open. When it ends, the page was closed or
reloaded, unless another one of the same session is open.
"""

import asyncio
from collections.abc import Callable
from urllib.parse import parse_qsl

from starlette._utils import get_route_path
from starlette.types import ASGIApp, Receive, Scope, Send

from ..session.store import SessionStore
from .refusal import HttpMiddleware, address_in
from .routes import rule_of

BEATS, EVENTS = "/gradio_api/heartbeat/{}", "/gradio_api/queue/data"
CALLS = ("/gradio_api/call/{}/{}", "/gradio_api/call/v2/{}/{}")
"""Streams of one call, which without a session is the session of its own event."""
MAX_FIELDS = 20
"""Of a stream's query; ValueError where there are more, which `watched.py` answers with 422."""


class Heartbeats(HttpMiddleware):
    """ASGI middleware that reports streams of sessions to the store."""

    def __init__(self, app: ASGIApp, *, sessions: SessionStore, leave: Callable[[str], None]):
        """`leave` is called, in a thread, with a session whose last heartbeat has ended."""
        super().__init__(app)
        self._sessions, self._leave = sessions, leave

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        session, beats = _session(scope), rule_of(scope).path == BEATS
        if not session:
            await self._app(scope, receive, send)
            return
        try:
            with self._sessions.stream(session, address_in(scope), beats=beats):
                await self._app(scope, receive, send)
        finally:
            if beats and not self._sessions.is_there(session):
                asyncio.get_running_loop().run_in_executor(None, self._leave, session)


def _session(scope: Scope) -> str:
    """The session of a stream, '' for none."""
    route = rule_of(scope).path
    if scope["method"] != "GET" or route not in (BEATS, EVENTS, *CALLS):
        return ""
    if route == EVENTS:
        query = scope["query_string"].decode("latin-1")
        # of a name that is given twice Gradio reads the last
        said = dict(parse_qsl(query, keep_blank_values=True, max_num_fields=MAX_FIELDS))
        return said.get("session_hash", "")
    return get_route_path(scope).rstrip("/").rpartition("/")[2]
