"""Where RAMOLE_AUTH asks for a password: only the way to log in is open without it, and wrong
passwords are bounded by address.

Gradio itself leaves some of its own routes open, such as those that end other sessions' runs.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from threading import Lock

from starlette._utils import get_route_path
from starlette.requests import cookie_parser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..session.address import HEADER, address_of
from .refusal import Refused, header

LOGIN = "/login"
OPEN = ("/", LOGIN, "/logout", "/health", "/config", "/theme.css", "/favicon.ico", "/robots.txt")
OPEN_TOO = ("/manifest.json", "/pwa_icon", "/gradio_api/theme.css", "/gradio_api/login_check")
FILES = ("/static/", "/assets/", "/svelte/", "/pwa_icon/")
"""Gradio's own, the same for every page."""
KEYS = ("/v1/",)
"""Where a key is asked for in each call."""
METRICS = "/metrics"
"""Asks for one too."""
BEGIN = "/gradio_api/startup-events"
"""Called once by the server itself, before anybody can log in."""
TRIES = 10
"""Wrong passwords of one address in `SPAN` seconds."""
TRIES_UNKNOWN = 100
"""The same of all whose address is unknown together."""
SPAN = 300.0
ADDRESSES = 4096
"""Addresses that are remembered, the latest ones."""


class Tries:
    """Wrong passwords, by address; bounded in memory."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._lock = Lock()
        self._at: OrderedDict[str, list[float]] = OrderedDict()

    def begin(self, address: str) -> float:
        """One more try, wrong until it was `right`, which is told what this returns; raises Refused
        after too many."""
        now, most = self._clock(), TRIES if address else TRIES_UNKNOWN
        with self._lock:
            tried = [at for at in self._at.pop(address, ()) if now - at < SPAN]
            self._at[address] = tried
            while len(self._at) > ADDRESSES:
                self._at.popitem(last=False)
            if len(tried) >= most:
                wait = tried[-most] + SPAN - now
                raise Refused(
                    429,
                    "Too many wrong passwords came from your address; try again in "
                    f"{max(1, round(wait))} seconds.",
                    retry=wait,
                    reason="guesses",
                )
            tried.append(now)
        return now

    def right(self, address: str, begun: float) -> None:
        """The password of the try that was `begun` so was right; others stay, which may be guesses
        at the password of somebody else."""
        with self._lock, suppress(KeyError, ValueError):
            self._at[address].remove(begun)


class Logins:
    """ASGI middleware for a page with passwords."""

    def __init__(self, app: ASGIApp, *, tries: Tries):
        self._app, self._tries = app, tries

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            try:
                self._check(scope)
                if get_route_path(scope).rstrip("/") == LOGIN and scope["method"] == "POST":
                    await self._login(scope, receive, send)
                    return
            except Refused as refused:
                await refused.tell(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        path = get_route_path(scope).rstrip("/") or "/"
        if path in OPEN or path in (*OPEN_TOO, METRICS) or path.startswith((*FILES, *KEYS)):
            return
        gradio = scope["app"]
        if path == BEGIN and not gradio.startup_events_triggered:
            return
        cookies = cookie_parser(header(scope, "cookie") or "")
        names = (f"access-token-{gradio.cookie_id}", f"access-token-unsecure-{gradio.cookie_id}")
        if not any(gradio.tokens.get(cookies.get(name)) for name in names):
            raise Refused(401, "This server asks for a password; log in first.", reason="password")

    async def _login(self, scope: Scope, receive: Receive, send: Send) -> None:
        address = address_of({HEADER: header(scope, HEADER) or ""})

        async def told(message: Message) -> None:
            if message.get("status") == 200:
                self._tries.right(address, begun)
            await send(message)

        begun = self._tries.begin(address)
        await self._app(scope, receive, told)
