"""How long a request may be: uploads as the cache has room for them, all others by one limit."""

from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..session.address import HEADER, address_of
from .cache import MIB, UploadCache
from .refusal import Refused, header, length, limited

UPLOAD = "/gradio_api/upload"
BETWEEN = MIB
"""Bytes of an upload between two looks at the room."""


class Bodies:
    """ASGI middleware: a request that is too long, or an upload without room, is refused."""

    def __init__(self, app: ASGIApp, *, cache: UploadCache, most: int):
        """`most`: bytes of a request that is no upload."""
        self._app, self._cache, self._most = app, cache, most

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
        got = looked = 0
        answer, status = b"", 0

        async def take(size: int) -> None:
            nonlocal got, looked
            got += size
            self._cache.coming(address, size)
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

        await run_in_threadpool(self._cache.check, address, max(length(scope), 1))
        try:
            await limited(self._app, scope, receive, heard, take)
        finally:
            self._cache.coming(address, -got)

    def _too_long(self) -> Refused:
        return Refused(
            413,
            f"The request is longer than {self._most // MIB} MiB; send less.",
            reason="too_long",
        )
