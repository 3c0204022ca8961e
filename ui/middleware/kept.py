"""A cache of compressed responses that are the same for everybody.

Gradio rebuilds the page and its configuration for each request, and compresses its scripts each
time, on the event loop. Both are the same for all clients that use the same host name.
"""

import gzip
import re
import sys
from collections import OrderedDict
from collections.abc import Callable

import brotli
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..session.counts import AddressRates
from .refusal import HttpMiddleware, address_in, header
from .routes import MIB, rule_of

FILES = ("/assets/{*}", "/static/{*}", "/svelte/{*}", "/theme.css", "/gradio_api/theme.css")
PAGES = ("/", "/config")
OWN = (b"deep_link", b"page", b"__sign")
"""Query parameters on which the page depends."""
NAMES = ("host", "x-forwarded-host", "x-forwarded-proto")
"""Headers from which the page takes its own URL."""
MAX_KEPT_BYTES = 32 * MIB
PAGES_PER_SECOND, PAGE_BURST = 1, 60
"""Pages and descriptions of them that are made for one address; each takes 50 ms of the server."""
NAMES_PER_SECOND, NAME_BURST = 0.25, 16
"""The same of pages that are cached: one host name needs few."""
MIN_COMPRESSED_BYTES = 400
"""Fewer bytes are sent uncompressed."""
UNKNOWN = "unknown"
"""Those whose address is not known have one rate together for what is cached, which costs nothing
once it is there; none for the rest, or one of them could keep all others out."""
ENCODINGS: dict[str, Callable[[bytes], bytes]] = {
    "br": lambda body: brotli.compress(body, quality=5),
    "gzip": lambda body: gzip.compress(body, 6),
}
ACCEPTED = re.compile(r"(?:^|(?<=,))([^;,]+)(?:;q=([01](?:\.\d*)?))?(?:,|$)")
"""An encoding of Accept-Encoding, and its weight, without spaces: these are slow to search."""
TEXT = ("text/", "application/json", "application/javascript", "image/svg+xml")
Answer = tuple[list[tuple[bytes, bytes]], bytes]


class ResponseCache(HttpMiddleware):
    """ASGI middleware that caches responses by key, as long as there is room, and bounds how many
    pages are made for an address."""

    def __init__(self, app: ASGIApp, *, pages: bool):
        """`pages`: the page itself is shared too, since there are no logins."""
        super().__init__(app)
        self._pages = pages
        self._kept: OrderedDict[tuple, Answer] = OrderedDict()
        self._bytes = 0
        self._made = AddressRates(rate=PAGES_PER_SECOND, burst=PAGE_BURST)
        self._named = AddressRates(rate=NAMES_PER_SECOND, burst=NAME_BURST)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        _say_encoding(scope)
        key = self._key(scope) if scope["method"] == "GET" else None
        if key is not None and key in self._kept:
            self._kept.move_to_end(key)
            await _send(self._kept[key], send)
            return
        if rule_of(scope).kind == "page":
            address = address_in(scope)
            if key is None:
                self._made.take(address)
            else:
                self._named.take(address or UNKNOWN)
        if key is None:
            await self._app(scope, receive, send)
            return
        start: Message = {}
        body = bytearray()

        async def collect(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start" and message["status"] == 200:
                start = message
            elif start and message["type"] == "http.response.body":
                body.extend(message.get("body", b""))
                if not message.get("more_body"):
                    made = await run_in_threadpool(_packed, start["headers"], bytes(body), key[0])
                    self._keep(key, made)
                    await _send(made, send)
            else:
                await send(message)

        await self._app(scope, receive, collect)

    def _key(self, scope: Scope) -> tuple | None:
        """The cache key of the response, its encoding first; None where it is not cached."""
        rule, encoding = rule_of(scope), header(scope, "accept-encoding")
        if any(header(scope, name) for name in ("range", "if-none-match", "if-modified-since")):
            return None
        if rule.path in FILES:
            return encoding, scope["path"]
        own = any(word in scope["query_string"] for word in OWN)
        if not self._pages or rule.path not in PAGES or own:
            return None
        names = tuple(header(scope, name) for name in NAMES)
        return encoding, scope["path"], scope.get("scheme"), scope.get("root_path"), *names

    def _keep(self, key: tuple, answer: Answer) -> None:
        if (before := self._kept.pop(key, None)) is not None:
            self._bytes -= _size(before)
        self._kept[key] = answer
        self._bytes += _size(answer)
        while self._bytes > MAX_KEPT_BYTES:
            self._bytes -= _size(self._kept.popitem(last=False)[1])


def _say_encoding(scope: Scope) -> None:
    """Leave the one encoding that is sent in Accept-Encoding: Gradio's own reader of it takes no
    notice of weights, and what it packs is cached for others."""
    said = "".join((header(scope, "accept-encoding") or "").lower().split())
    weights = {name: float(weight or 1) for name, weight in ACCEPTED.findall(said)}
    ours = {one: weights.get(one, weights.get("*", 0)) for one in ENCODINGS}
    best = max(ours, key=ours.__getitem__)
    encoding = best if ours[best] else "identity"
    others = [one for one in scope["headers"] if one[0].lower() != b"accept-encoding"]
    scope["headers"] = [*others, (b"accept-encoding", encoding.encode())]


def _packed(headers: list[tuple[bytes, bytes]], body: bytes, encoding: str) -> Answer:
    """The response with its compressed body."""
    kind = next((value for key, value in headers if key.lower() == b"content-type"), b"")
    done = any(key.lower() == b"content-encoding" for key, _ in headers)
    kept = [one for one in headers if one[0].lower() != b"content-length"]
    worth = len(body) >= MIN_COMPRESSED_BYTES and kind.decode("latin-1").startswith(TEXT)
    if encoding in ENCODINGS and worth and not done:
        body = ENCODINGS[encoding](body)
        kept += [(b"content-encoding", encoding.encode()), (b"vary", b"Accept-Encoding")]
    return [*kept, (b"content-length", str(len(body)).encode())], body


def _size(answer: Answer) -> int:
    return len(answer[1]) + sys.getsizeof(answer[0])


async def _send(answer: Answer, send: Send) -> None:
    headers, body = answer
    await send({"type": "http.response.start", "status": 200, "headers": list(headers)})
    await send({"type": "http.response.body", "body": body})
