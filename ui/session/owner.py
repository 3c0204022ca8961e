"""The owner of an upload: a browser tab or a client of the API, until it leaves.

The session's hash is what lets a client act as that session, so an owner's name is made from it
one way: it can stand in a folder's name or an answer without giving the session away.

Gradio gives a page a new session each time it is loaded, so a browser tab sends a secret of its own
in the header `x-ramole-session` (`tab_secret.js`), and its uploads outlive a reload. Gradio hands
every MCP client's calls on through one session of its own; such a client sends that header too, or
it has no uploads.

A hash or a secret can be invented, as many as one likes; so a visitor is also an address.
"""

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

import gradio as gr

from .address import address_of

PREFIX = "session-"
"""Prefix of owners that end with the server's process."""
SECRET_HEADER = "x-ramole-session"
SHORTEST_SECRET = 16
OPERATOR_HEADER = "x-ramole-operator"
OPERATOR_KEY = secrets.token_urlsafe(24)
"""Key of this process; readers of the data folder find it there, and may call as the operator."""


@dataclass(frozen=True)
class Visitor:
    """The sender of a call."""

    owner: str | None = None
    """Of its uploads; None, without a session, sees the samples only."""
    address: str = ""
    """Its network address; '' where unknown."""
    operator: bool = False
    """Whether it may write into the data folder: its uploads are everybody's, and stay."""


def visitor_of(request: gr.Request | None) -> Visitor:
    headers = getattr(request, "headers", None) or {}
    if is_operator(headers):
        return Visitor(None, address_of(headers), operator=True)
    return Visitor(owner_of(request), address_of(headers))


def is_operator(headers: Mapping[str, str]) -> bool:
    given = headers.get(OPERATOR_HEADER) or ""
    return hmac.compare_digest(given.encode(), OPERATOR_KEY.encode())


def owner_of(request: gr.Request | None) -> str | None:
    """The owner of this request's uploads; None, without a session, sees the samples only."""
    if request is None:
        return None
    headers = getattr(request, "headers", None) or {}
    secret = headers.get(SECRET_HEADER) or ""
    known = len(secret) >= SHORTEST_SECRET
    if headers.get("x-gradio-user") == "mcp":
        return _owner("mcp", secret) if known else None
    session = getattr(request, "session_hash", None)
    if not session:
        return None
    return _owner("browser", secret) if known else page_owner(session)


def secret_owner(headers: Mapping[str, str]) -> str | None:
    """The owner of a call without Gradio, by its secret; None without one."""
    secret = headers.get(SECRET_HEADER) or ""
    return _owner("browser", secret) if len(secret) >= SHORTEST_SECRET else None


def page_owner(session: str) -> str | None:
    """The owner by Gradio's session, without a secret."""
    return _owner("tab", session) if session else None


def _owner(kind: str, secret: str) -> str:
    return PREFIX + hashlib.sha256(f"{kind} {secret}".encode()).hexdigest()[:24]
