"""Whose uploads are whose: a browser tab, or a client of the API, is an owner until it leaves.

The session's hash is what lets a client act as that session, so an owner's name is made from it
one way: it can stand in a folder's name or an answer without giving the session away.

Gradio hands every MCP client's calls on through one session of its own. An MCP client is therefore
known by a secret that it sends in the header `x-ramole-session`, or it has no uploads.

A hash or a secret can be invented, as many as one likes; so a visitor is also an address.
"""

import hashlib
from dataclasses import dataclass

import gradio as gr

from .address import address_of

PREFIX = "session-"
"""Owners that begin so do not outlive the server's process."""
MCP_HEADER = "x-ramole-session"
SHORTEST_SECRET = 16


@dataclass(frozen=True)
class Visitor:
    """Who made a call."""

    owner: str | None = None
    """Of its uploads; None, without a session, sees the samples only."""
    address: str = ""
    """Where it comes from; '' where that is unknown."""


def visitor_of(request: gr.Request | None) -> Visitor:
    """Who made this request."""
    headers = getattr(request, "headers", None) or {}
    return Visitor(owner_of(request), address_of(headers))


def owner_of(request: gr.Request | None) -> str | None:
    """The owner of this request's uploads; None, without a session, sees the samples only."""
    if request is None:
        return None
    headers = getattr(request, "headers", None) or {}
    if headers.get("x-gradio-user") == "mcp":
        secret = headers.get(MCP_HEADER) or ""
        return _owner("mcp", secret) if len(secret) >= SHORTEST_SECRET else None
    session = getattr(request, "session_hash", None)
    return _owner("tab", session) if session else None


def _owner(kind: str, secret: str) -> str:
    return PREFIX + hashlib.sha256(f"{kind} {secret}".encode()).hexdigest()[:24]
