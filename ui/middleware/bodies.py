"""Limits of body sizes: uploads by the cache's room, all others by their route."""

import json
from contextlib import suppress
from itertools import count

from python_multipart.multipart import parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..session.address import HEADER, address_of
from ..session.counts import AddressCounts, Taken
from .cache import MIB, UNNAMED, UploadCache
from .json_parts import MAX_DEPTH, MAX_PARTS, JsonParts
from .refusal import Refused, header, length, limited
from .routes import Rule, rule_of, size_of

BETWEEN = MIB
"""Bytes of an upload between two looks at the room."""
MAX_FILES = 250
"""Of one upload."""
ADDRESS_BYTES = 16 * MIB
"""Of bodies from one address that are on their way or being answered, but for uploads."""
ALL_BYTES = 128 * MIB
NO_TEXT = "The body of the request is no text in UTF-8; send JSON in UTF-8."
HALF = "The request has half a character in it; send whole ones."
MCP = "/mcp"


class Bodies:
    """ASGI middleware: a request that is too long, or an upload without room, is refused."""

    def __init__(self, app: ASGIApp, *, cache: UploadCache):
        self._app, self._cache = app, cache
        self._coming = AddressCounts(ADDRESS_BYTES, ALL_BYTES)
        self._numbers = count()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self._app(scope, receive, send)
            return
        rule = rule_of(scope)
        try:
            if rule.kind == "upload":
                await self._upload(scope, receive, send, rule)
            else:
                await self._other(scope, receive, send, rule)
        except Refused as refused:
            await refused.respond(scope, receive, send)

    async def _other(self, scope: Scope, receive: Receive, send: Send, rule: Rule) -> None:
        address, got, parts = _address(scope), 0, JsonParts() if rule.parsed else None
        kept = bytearray()  # of MCP, whose server writes what it cannot encode

        async def take(piece: bytes, last: bool) -> None:
            nonlocal got
            if got + len(piece) > rule.body:
                raise _too_long(rule)
            self._hold(address, len(piece))
            got += len(piece)
            if parts is not None:
                try:
                    parts.feed(piece, last=last)
                except UnicodeDecodeError:
                    raise Refused(400, NO_TEXT, reason="invalid") from None
                if parts.count > MAX_PARTS:
                    raise Refused(
                        413,
                        f"The request has more than {MAX_PARTS} lists, objects and commas; "
                        "split it.",
                        reason="too_long",
                    )
                if parts.depth > MAX_DEPTH:
                    raise Refused(
                        413,
                        f"The request has more than {MAX_DEPTH} lists and objects in one another; "
                        "send fewer.",
                        reason="too_long",
                    )

            if MCP in rule.path:
                kept.extend(piece)
                if last and has_half_characters(kept):
                    raise Refused(400, HALF, reason="invalid")

        if length(scope) > rule.body:
            raise _too_long(rule)
        await run_in_threadpool(self._cache.tidy)  # handlers put files there too, to be fetched
        try:
            await limited(self._app, scope, receive, send, take)
        finally:
            self._coming.give_back(address, got)

    def _hold(self, address: str, size: int) -> None:
        try:
            self._coming.take(address, size)
        except Taken as taken:
            whose = "your address" if taken.near else "everybody"
            raise Refused(
                429 if taken.near else 503,
                f"Too much of requests from {whose} is on its way; try again in a moment.",
                retry=2,
                reason="too_many",
            ) from None

    async def _upload(self, scope: Scope, receive: Receive, send: Send, rule: Rule) -> None:
        address = _address(scope) or f"{UNNAMED}{next(self._numbers)}"
        parts = Parts(header(scope, "content-type") or "")
        got, looked = 0, -BETWEEN
        answer, status = b"", 0

        async def take(piece: bytes, last: bool) -> None:
            nonlocal got, looked
            parts.feed(piece)
            got += len(piece)
            self._cache.coming(address, len(piece))
            if got > rule.body:  # where the address is unknown, the cache has room for more
                raise _too_long(rule)
            if parts.count > MAX_FILES + 1:  # the end has a boundary too
                raise Refused(
                    413,
                    f"An upload may have {MAX_FILES} files at a time; send fewer at once.",
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
        if said > rule.body:
            raise _too_long(rule)
        try:
            await limited(self._app, scope, receive, heard, take)
        finally:
            self._cache.coming(address, -got)


def has_half_characters(body: bytes | bytearray) -> bool:
    """Whether strings of this JSON have surrogates without their other half, which no text in UTF-8
    can have; False for what is no JSON."""
    if rb"\ud" in body.lower():
        with suppress(ValueError):
            read = json.loads(body)
            try:
                json.dumps(read, ensure_ascii=False).encode()
            except UnicodeEncodeError:
                return True
    return False


def _address(scope: Scope) -> str:
    return address_of({HEADER: header(scope, HEADER) or ""})


def _too_long(rule: Rule) -> Refused:
    size = size_of(rule.body)
    return Refused(413, f"The request is longer than {size}; send less.", reason="too_long")


class Parts:
    """Counts the boundaries of a multipart body, whose pieces end anywhere."""

    def __init__(self, kind: str):
        """`kind`: the Content-Type."""
        said = parse_options_header(kind)[1].get(b"boundary")
        self._mark = b"--" + said if said else b""
        self._tail = b""
        self.count = 0

    def feed(self, piece: bytes) -> None:
        """The next piece of the body."""
        if self._mark:
            heard = self._tail + piece
            self.count += heard.count(self._mark)
            rest = heard.rpartition(self._mark)[2]
            self._tail = rest[1 - len(self._mark) :]
