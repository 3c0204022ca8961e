"""ASGI applications that are asked without a server."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any


def told(app, path: str = "/", /, **request: Any) -> list[dict]:
    """All that the application sends for one request, as `ask` makes it."""
    return asyncio.run(ask(app, path, **request))


def status(app, path: str = "/", /, **request: Any) -> int:
    """The status that a request gets."""
    return told(app, path, **request)[0]["status"]


async def ask(
    app,
    path: str,
    /,
    *,
    method: str = "GET",
    headers: Iterable[tuple[str, str]] = (),
    pieces: Sequence[tuple[float, bytes]] = ((0, b""),),
    stays: float = 0,
    **more: Any,
) -> list[dict]:
    """`pieces` of the body come each after so many seconds; then the sender `stays` for a while."""
    sent, left = [], list(pieces)

    async def receive() -> dict:
        if not left:
            await asyncio.sleep(stays)
            return {"type": "http.disconnect"}
        pause, body = left.pop(0)
        await asyncio.sleep(pause)
        return {"type": "http.request", "body": body, "more_body": bool(left)}

    async def send(message) -> None:
        sent.append(message)

    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    scope = {"type": "http", "method": method, "path": path, "headers": raw, "query_string": b""}
    await app({**scope, **more}, receive, send)
    return sent


async def page(scope, receive, send) -> None:
    """An application that reads its request whole, and answers 200."""
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200})
