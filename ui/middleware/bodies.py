"""Limits of bodies: uploads by the cache's room, all others by their route's size, and by the parts
of their JSON.

Readers of JSON make an object of each part: 4 MB of `[]` cost seconds of the event loop; and they,
or code that reads the result, recurse into nested parts. So parts are counted as the body comes,
before it is parsed. What stands in strings is text and not counted.
"""

import codecs
import json
import re
from contextlib import suppress
from itertools import count

import numpy as np
from python_multipart.multipart import parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..session.counts import AddressCounts, Taken
from .cache import MIB, UNNAMED, UploadCache
from .refusal import HttpMiddleware, Refused, address_in, header, length, limited, too_long
from .routes import Rule, rule_of, size_of

CHECK_BYTES = MIB
"""Bytes of an upload between two checks of the room."""
MAX_FILES = 250
"""Most files of one upload."""
ADDRESS_BYTES = 16 * MIB
"""Most bytes of one address's bodies in progress, uploads excluded."""
ALL_BYTES = 128 * MIB
MAX_DEPTH = 100
"""Depth of nested lists and objects."""
MAX_PARTS = 50_000
"""Of one body: `[`, `{` and `,` outside of strings."""
ESCAPED = re.compile(rb"\\.", re.DOTALL)
BRACKETS = {b"[": 1, b"{": 1, b"]": -1, b"}": -1}
OTHERS = bytes(set(range(256)) - set(b"".join(BRACKETS)))
STEPS = np.zeros(256, np.int64)
STEPS[list(b"".join(BRACKETS))] = list(BRACKETS.values())
NO_TEXT = "The body of the request is no text in UTF-8; send JSON in UTF-8."
HALF = "The request has half a character in it; send whole ones."
MCP = "/mcp"


class Bodies(HttpMiddleware):
    """ASGI middleware: a request that is too long, or an upload without room, is refused."""

    def __init__(self, app: ASGIApp, *, cache: UploadCache):
        super().__init__(app)
        self._cache = cache
        self._coming = AddressCounts(ADDRESS_BYTES, ALL_BYTES)
        self._numbers = count()

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        rule = rule_of(scope)
        if scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self._app(scope, receive, send)
        elif rule.kind == "upload":
            await self._upload(scope, receive, send, rule)
        else:
            await self._other(scope, receive, send, rule)

    async def _other(self, scope: Scope, receive: Receive, send: Send, rule: Rule) -> None:
        address, got, parts = address_in(scope), 0, JsonCounter() if rule.parsed else None
        kept = bytearray()  # of MCP, whose server writes what it cannot encode

        async def take(piece: bytes, last: bool) -> None:
            nonlocal got
            _check_size(got + len(piece), rule)
            self._hold(address, len(piece))
            got += len(piece)
            if parts is not None:
                try:
                    parts.feed(piece, last=last)
                except UnicodeDecodeError:
                    raise Refused(400, NO_TEXT, reason="invalid") from None
                if parts.count > MAX_PARTS:
                    what = f"{MAX_PARTS} lists, objects and commas; split it"
                    raise too_long(f"The request has more than {what}.")
                if parts.depth > MAX_DEPTH:
                    what = f"{MAX_DEPTH} lists and objects in one another; send fewer"
                    raise too_long(f"The request has more than {what}.")
            if MCP in rule.path:
                kept.extend(piece)
                if last and has_half_characters(kept):
                    raise Refused(400, HALF, reason="invalid")

        _check_size(length(scope), rule)
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
        address = address_in(scope) or f"{UNNAMED}{next(self._numbers)}"
        parts = MultipartCounter(header(scope, "content-type") or "")
        got, looked = 0, -CHECK_BYTES
        answer, status = b"", 0

        async def take(piece: bytes, last: bool) -> None:
            nonlocal got, looked
            parts.feed(piece)
            got += len(piece)
            self._cache.coming(address, len(piece))
            _check_size(got, rule)  # where the address is unknown, the cache has room for more
            if parts.count > MAX_FILES + 1:  # the end has a boundary too
                raise too_long(
                    f"An upload may have {MAX_FILES} files at a time; send fewer at once."
                )
            if got - looked >= CHECK_BYTES:
                looked = got
                await run_in_threadpool(self._cache.check, address)

        async def note(message: Message) -> None:
            nonlocal answer, status
            status = message.get("status", status)
            answer += message.get("body", b"")
            if not message.get("more_body") and message["type"].endswith("body") and status == 200:
                self._cache.arrived(address, answer)
            await send(message)

        said = max(length(scope), 1)
        await run_in_threadpool(self._cache.check, address, said, announced=True)
        _check_size(said, rule)
        try:
            await limited(self._app, scope, receive, note, take)
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


def _check_size(size: int, rule: Rule) -> None:
    if size > rule.body:
        raise too_long(f"The request is longer than {size_of(rule.body)}; send less.")


class MultipartCounter:
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


class JsonCounter:
    """Counts the parts of a body whose pieces end anywhere; a body that is no JSON has a count too,
    in one pass."""

    def __init__(self):
        self.count = 0
        self.depth = 0
        """The most that were in one another."""
        self._now = 0
        self._inside = False
        self._tail = b""
        self._decoder = codecs.getincrementaldecoder("utf-8")()

    def feed(self, piece: bytes, *, last: bool = False) -> None:
        """Add the next piece of the body; raises UnicodeDecodeError where it is no text in UTF-8,
        which is what JSON is sent in."""
        self._decoder.decode(piece, last)
        piece = self._tail + piece
        slashes = len(piece) - len(piece.rstrip(b"\\"))
        self._tail = piece[-1:] if slashes % 2 else b""
        pieces = ESCAPED.sub(b"", piece[: len(piece) - slashes % 2]).split(b'"')
        outside = b" ".join(pieces[self._inside :: 2])
        self.count += sum(map(outside.count, (b"[", b"{", b",")))
        if brackets := outside.translate(None, OTHERS):
            depths = self._now + np.cumsum(STEPS[np.frombuffer(brackets, np.uint8)])
            self._now, self.depth = int(depths[-1]), max(self.depth, int(depths.max()))
        self._inside ^= len(pieces) % 2 == 0
