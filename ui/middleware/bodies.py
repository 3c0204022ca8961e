"""How long a request may be: uploads as the cache has room for them, all others by one limit."""

import re
from itertools import count

from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..session.address import HEADER, address_of
from .cache import MIB, UNNAMED, UploadCache
from .refusal import Refused, header, length, limited

UPLOAD = "/gradio_api/upload"
BETWEEN = MIB
"""Bytes of an upload between two looks at the room."""
MOST_FILES = 250
"""Of one upload."""


class Bodies:
    """ASGI middleware: a request that is too long, or an upload without room, is refused."""

    def __init__(self, app: ASGIApp, *, cache: UploadCache, most: int):
        """`most`: bytes of a request that is no upload."""
        self._app, self._cache, self._most = app, cache, most
        self._numbers = count()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self._app(scope, receive, send)
            return
        try:
            work = self._upload if scope["path"].rstrip("/").endswith(UPLOAD) else self._other
            await work(scope, receive, send)
        except Refused as refused:
            await refused.tell(scope, receive, send)

    async def _other(self, scope: Scope, receive: Receive, send: Send) -> None:
        got = 0

        async def take(size: int) -> None:
            nonlocal got
            got += size
            if got > self._most:
                raise self._too_long()

        if length(scope) > self._most:
            raise self._too_long()
        await run_in_threadpool(self._cache.tidy)  # handlers put files there too, to be fetched
        await limited(self._app, scope, receive, send, take)

    async def _upload(self, scope: Scope, receive: Receive, send: Send) -> None:
        address = address_of({HEADER: header(scope, HEADER) or ""})
        address = address or f"{UNNAMED}{next(self._numbers)}"
        parts = Parts(header(scope, "content-type") or "")
        got, looked = 0, -BETWEEN
        answer, status = b"", 0

        async def counted() -> Message:
            message = await receive()
            parts.hear(message.get("body", b""))
            return message

        async def take(size: int) -> None:
            nonlocal got, looked
            got += size
            self._cache.coming(address, size)
            if parts.count > MOST_FILES + 1:  # the end has a boundary too
                raise Refused(
                    413,
                    f"An upload may have {MOST_FILES} files at a time; send fewer at once.",
                    reason="too_long",
                )
            if got - looked >= BETWEEN:
                looked = got
                await run_in_threadpool(self._cache.check, address)

        async def heard(message: Message) -> None:
            nonlocal answer, status
            status = message.get("status", status)
            answer += message.get("body", b"")
            if not message.get("more_body") and message["type"].endswith("body") and status == 200:
                self._cache.arrived(address, answer)
            await send(message)

        said = max(length(scope), 1)
        await run_in_threadpool(self._cache.check, address, said, announced=True)
        try:
            await limited(self._app, scope, counted, heard, take)
        finally:
            self._cache.coming(address, -got)

    def _too_long(self) -> Refused:
        return Refused(
            413,
            f"The request is longer than {self._most // MIB} MiB; send less.",
            reason="too_long",
        )


class Parts:
    """Counts the boundaries of a multipart body, whose pieces end anywhere."""

    def __init__(self, kind: str):
        """`kind`: the Content-Type."""
        said = re.search(r'boundary="?([^";,]+)', kind, re.IGNORECASE)
        self._mark = b"--" + said[1].strip().encode("latin1") if said else b""
        self._tail = b""
        self.count = 0

    def hear(self, piece: bytes) -> None:
        """The next piece of the body."""
        if self._mark:
            heard = self._tail + piece
            self.count += heard.count(self._mark)
            rest = heard.rpartition(self._mark)[2]
            self._tail = rest[1 - len(self._mark) :]
