"""Refuse a request with a status and a sentence, also while its body comes."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

from starlette.datastructures import Headers
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..session.address import address_of
from ..session.counts import Taken
from ..watch.events import refused as note_refused

MAX_WAIT_SECONDS = 30.0
"""Seconds in which MIN_BYTES_PER_SECOND of a body must arrive on average."""
LINGER_SECONDS = 2.0
"""Seconds for bytes that are still arriving after a refusal."""
LINGER_BYTES = 8 * 2**20
MIN_BYTES_PER_SECOND = 4096
"""Least rate of a body in that time."""
GRADIO_API = ("/gradio_api/queue/", "/gradio_api/call/", "/gradio_api/run/", "/gradio_api/api/")
"""Routes where Gradio's clients read a refusal as JSON."""
OPENAI = "/v1/"
"""Routes where OpenAI's clients do."""
TYPES = {401: "authentication_error", 429: "rate_limit_error"}
TYPES |= dict.fromkeys((500, 503), "server_error")
"""Of errors there, by status; all others are `invalid_request_error`."""


class Refused(Exception):
    """A refused request; the text is sent to the client."""

    def __init__(self, status: int, sentence: str, *, retry: float = 0, reason: str = "door"):
        """`retry`: seconds after which it may be worth another try; `reason`: one word of ours for
        the operator."""
        super().__init__(sentence)
        self.status, self.retry, self.reason = status, retry, reason

    async def respond(
        self, scope: Scope, receive: Receive, send: Send, *, whole: bool = False
    ) -> None:
        """Send the sentence, and read no more of the request than what is arriving: a connection
        that is closed over unread bytes may lose the answer. `whole`: all of it was read."""
        note_refused(self)
        headers = {"connection": "close"}
        if self.retry:
            headers["retry-after"] = str(max(1, round(self.retry)))
        path = scope.get("path", "")
        if OPENAI in path:
            answer = JSONResponse(openai_body(self, code=self.reason), self.status, headers)
        elif any(one in path for one in GRADIO_API):
            told = {"error": str(self), "detail": str(self)}
            answer = JSONResponse(told, self.status, headers)
        else:
            answer = PlainTextResponse(str(self), self.status, headers)
        start = {"type": "http.response.start", "status": self.status}
        await send({**start, "headers": answer.raw_headers})
        await send({"type": "http.response.body", "body": answer.body, "more_body": True})
        if not whole:
            with suppress(TimeoutError):
                await asyncio.wait_for(_rest(receive), LINGER_SECONDS)
        await send({"type": "http.response.body", "body": b""})


def openai_body(refused: Refused, *, param: str | None = None, code: str | None = None) -> dict:
    """The body of a refusal as OpenAI's clients read it."""
    kind = TYPES.get(refused.status, "invalid_request_error")
    return {"error": {"message": str(refused), "type": kind, "param": param, "code": code}}


def too_long(sentence: str) -> Refused:
    """The refusal of a body with too much in it."""
    return Refused(413, sentence, reason="too_long")


class HttpMiddleware:
    """Base of the ASGI middleware: requests of HTTP go to `handle`, which may raise `Refused`, or
    `Taken` for one too many in progress."""

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            await self.handle(scope, receive, send)
        except Refused as refused:
            await refused.respond(scope, receive, send)
        except Taken as taken:
            await crowded(near=taken.near).respond(scope, receive, send)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        raise NotImplementedError


def crowded(*, near: bool) -> Refused:
    """The refusal of one request too many."""
    whose = "from your address " if near else ""
    return Refused(
        429 if near else 503,
        f"The server is busy: too many requests {whose}are in progress; try again in a moment.",
        retry=2,
        reason="too_many",
    )


async def _rest(receive: Receive) -> None:
    """Read the rest of the request, within limits."""
    left = LINGER_BYTES
    while left > 0:
        message = await receive()
        if message["type"] != "http.request" or not message.get("more_body", False):
            return
        left -= len(message.get("body", b""))


async def limited(
    app: ASGIApp,
    scope: Scope,
    receive: Receive,
    send: Send,
    take: Callable[[bytes, bool], Awaitable[None]],
) -> None:
    """Run `app`, with `take` called for each piece of the body as it comes, and whether it is the
    last; where that raises `Refused`, or the body is too slow, the sender gets the refusal,
    whatever `app` does."""
    refusal: Refused | None = None
    started = whole = False
    waited, came = 0.0, 0
    """Since the last MAX_WAIT_SECONDS * MIN_BYTES_PER_SECOND bytes were there."""

    async def piece() -> Message:
        nonlocal waited
        if whole:  # what comes now is the end of the connection, however late
            return await receive()
        began = time.monotonic()
        try:
            return await asyncio.wait_for(receive(), max(MAX_WAIT_SECONDS - waited, 0.01))
        except TimeoutError:
            raise Refused(
                408, "The request came too slowly; send it again in one go.", reason="slow"
            ) from None
        finally:
            waited += time.monotonic() - began

    async def counted() -> Message:
        nonlocal refusal, whole, waited, came
        try:
            message = await piece()
            body = message.get("body", b"")
            came, whole = came + len(body), not message.get("more_body", False)
            if came >= MAX_WAIT_SECONDS * MIN_BYTES_PER_SECOND:
                waited, came = 0.0, 0
            await take(body, whole)
        except Refused as refused:
            refusal = refused
            raise
        return message

    async def told(message: Message) -> None:
        nonlocal started
        if refusal is None or started:
            started = True
            await send(message)

    try:
        await app(scope, counted, told)
    except Exception:
        if refusal is None or started:
            raise
    if refusal is not None and not started:
        await refusal.respond(scope, receive, send, whole=whole)


def header(scope: Scope, name: str) -> str | None:
    """A header of the request; None where it is not there."""
    return Headers(scope=scope).get(name)


def address_in(scope: Scope) -> str:
    """The address that a request comes from; '' where it is unknown."""
    return address_of(Headers(scope=scope))


def length(scope: Scope) -> int:
    """Return the declared length of the body in bytes; 0 where none is declared."""
    said = header(scope, "content-length") or ""
    return int(said) if said.isascii() and said.isdigit() and len(said) < 20 else 0
