"""A request that goes no further: a status and a sentence. A body can be cut while it comes."""

from collections.abc import Awaitable, Callable

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Refused(Exception):
    """A request is refused; the text is what its sender is told."""

    def __init__(self, status: int, sentence: str, *, retry: float = 0):
        """`retry`: seconds after which it may be worth another try."""
        super().__init__(sentence)
        self.status, self.retry = status, retry

    async def tell(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the sentence, and hear no more of the request."""
        headers = {"connection": "close"}
        if self.retry:
            headers["retry-after"] = str(max(1, round(self.retry)))
        await PlainTextResponse(str(self), self.status, headers)(scope, receive, send)


async def limited(
    app: ASGIApp, scope: Scope, receive: Receive, send: Send, take: Callable[[int], Awaitable[None]]
) -> None:
    """Run `app`, with `take` called for the bytes of each piece of the body as it comes; where that
    raises `Refused`, the sender is told, whatever `app` makes of it."""
    refusal: Refused | None = None
    started = False

    async def counted() -> Message:
        nonlocal refusal
        message = await receive()
        try:
            await take(len(message.get("body", b"")))
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
        await refusal.tell(scope, receive, send)


def header(scope: Scope, name: str) -> str | None:
    """A header of the request; None where it is not there."""
    wanted = name.encode()
    found = (value for key, value in scope["headers"] if key == wanted)
    return next((value.decode("latin1") for value in found), None)


def length(scope: Scope) -> int:
    """The bytes that the body is said to have; 0 where nothing is said."""
    said = header(scope, "content-length") or ""
    return int(said) if said.isascii() and said.isdigit() and len(said) < 20 else 0
