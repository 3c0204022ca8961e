"""Require a password or key on all routes but the open ones.

Gradio itself leaves some of its own routes open, such as those that end other sessions' runs. A
call with a key or a password (`Authorization`) gets the cookie that a browser has after it logged
in, so endpoints, uploads and MCP know its user.
"""

import secrets
import time
from collections.abc import Callable
from typing import Any

from gradio import mcp
from gradio_client import Client
from starlette._utils import get_route_path
from starlette.requests import cookie_parser
from starlette.types import ASGIApp, Receive, Scope, Send

from ..session.accounts import Accounts, TooManyTries, calling_from
from ..session.address import OWN, OWN_HEADER
from ..session.owner import OPERATOR_HEADER, OPERATOR_KEY, is_operator
from .refusal import HttpMiddleware, Refused, address_in, header
from .routes import rule_of

BEGIN = "/gradio_api/startup-events"
"""Route that the server itself calls once, before any login."""
TOKEN_SECONDS = 7 * 24 * 3600.0
"""Seconds after which a login expires."""
OURS = "the server itself"
"""The user who runs it, too."""


class Logins(HttpMiddleware):
    """ASGI middleware for a page with passwords or keys."""

    def __init__(self, app: ASGIApp, *, accounts: Accounts):
        super().__init__(app)
        self._accounts = accounts
        self._given: dict[str, str] = {}
        """By user: the token for calls that bring a key."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        address = address_in(scope)
        try:
            scope = await self._checked(scope, address)
            with calling_from(address):
                await self._app(scope, receive, send)
        except TooManyTries as many:
            raise Refused(
                429,
                "Too many passwords for this user are being tried; try again in "
                f"{max(1, round(many.seconds))} seconds.",
                retry=many.seconds,
                reason="guesses",
            ) from None

    async def _checked(self, scope: Scope, address: str) -> Scope:
        """The scope of an authorised request; raises Refused for others."""
        gradio, path = scope["app"], get_route_path(scope).rstrip("/")
        if rule_of(scope).open and path != "" and path != "/config":
            return scope
        if path == BEGIN and not gradio.startup_events_triggered:
            return scope
        name = f"access-token-unsecure-{gradio.cookie_id}"
        said = header(scope, "cookie") or ""
        cookies = cookie_parser(said)
        if any(
            gradio.tokens.get(cookies.get(one)) for one in (name, name.replace("-unsecure", ""))
        ):
            return scope
        authorization = header(scope, "authorization")
        user = await self._accounts.caller(authorization, address)
        more = []
        if self._accounts.is_operator(authorization):
            more = [(OPERATOR_HEADER.encode(), OPERATOR_KEY.encode())]
        operator = {OPERATOR_HEADER: header(scope, OPERATOR_HEADER) or ""}
        if user is None and (header(scope, OWN_HEADER) == OWN or is_operator(operator)):
            user = OURS  # or MCP's own client, whose callers were asked before
        if user is None:
            if rule_of(scope).open:
                return scope  # Gradio shows the page to log in on
            raise Refused(
                401,
                "This server asks for a password or key; log in first, or send it as "
                "`Authorization: Bearer KEY`.",
                reason="password",
            )
        token = self._given.setdefault(user, secrets.token_urlsafe(16))
        gradio.tokens[token] = user
        cookie = f"{name}={token}".encode("latin-1")
        more.append((b"cookie", cookie))
        taken = {key for key, _ in more}
        others = [(key, value) for key, value in scope["headers"] if key not in taken]
        return {**scope, "headers": [*others, *more]}


def let_mcp_call() -> None:
    """Mark calls of this server's own MCP client."""

    def client(*said: Any, headers: dict[str, str], **more: Any) -> Client:
        return Client(*said, headers={**headers, OWN_HEADER: OWN}, **more)

    setattr(mcp, "Client", client)  # noqa: B010 it does not say that it has one


class OldTokens:
    """The expiry of a page's logins."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._since: dict[str, float] = {}

    def sweep(self, tokens: dict[str, Any]) -> None:
        """Remove expired logins from Gradio's own."""
        now = self._clock()
        self._since = {token: self._since.get(token, now) for token in list(tokens)}
        for token, since in self._since.items():
            if now - since > TOKEN_SECONDS:
                tokens.pop(token, None)
