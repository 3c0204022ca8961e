"""Those who mean harm, or have a bad line: they drip, vanish, read slowly, or hold connections."""

import asyncio
import json
import random
import socket
import struct
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import urlsplit

QUESTION = {"model": "base", "messages": [{"role": "user", "content": "hello"}], "stream": True}
RESET = struct.pack("ii", 1, 0)
"""A connection that is closed with it says no goodbye."""


class Nuisances:
    """All of them against one server; `counts` says what each did."""

    def __init__(self, url: str, *, connections: int, tokens: int, seed: int):
        at = urlsplit(url)
        self.host, self.port = str(at.hostname), int(at.port or 80)
        self.connections, self.random = connections, random.Random(f"{seed} nuisances")
        body = json.dumps({**QUESTION, "max_tokens": tokens}).encode()
        self.asked = self.head("/v1/chat/completions", len(body)) + body
        self.counts: Counter[str] = Counter()

    def head(self, path: str, length: int) -> bytes:
        """The head of a POST of JSON."""
        lines = (f"POST {path} HTTP/1.1", f"Host: {self.host}", "Content-Type: application/json")
        return "\r\n".join((*lines, f"Content-Length: {length}", "\r\n")).encode()

    async def stay(self, until: float) -> None:
        """Do all of it until that time of the loop."""
        ways = (self.drip_head, self.drip_body, self.vanish, self.read_slowly, self.hold)
        await asyncio.gather(*(self._again(way, until) for way in ways))

    async def drip_head(self, left: Callable[[], float]) -> None:
        """A request whose head never ends; the server hangs up."""
        _, writer = await self._open("127.0.9.1")
        writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Long: ")
        with suppress(ConnectionError):
            while left() > 0:
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.5)
        self.counts["heads that were cut"] += left() > 0
        writer.close()

    async def drip_body(self, left: Callable[[], float]) -> None:
        """A body that comes a byte at a time; the server says 408."""
        reader, writer = await self._open("127.0.9.2")
        writer.write(self.head("/gradio_api/call/v2/ask", 10_000))
        with suppress(ConnectionError):
            while left() > 0 and not reader.at_eof():
                writer.write(b" ")
                await writer.drain()
                with suppress(TimeoutError):
                    if await asyncio.wait_for(reader.read(4096), 0.5):
                        self.counts["bodies that were cut"] += 1
                        break
        writer.close()

    async def vanish(self, left: Callable[[], float]) -> None:
        """A client that is gone in the middle of its answer."""
        reader, writer = await self._open("127.0.9.3")
        writer.write(self.asked)
        with suppress(TimeoutError, ConnectionError):
            await asyncio.wait_for(reader.read(64), min(30, max(left(), 0.1)))
            await asyncio.sleep(self.random.uniform(0, 0.3))
        made = writer.get_extra_info("socket")
        made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        writer.transport.abort()
        self.counts["clients that vanished"] += 1

    async def read_slowly(self, left: Callable[[], float]) -> None:
        """An answer that is read a few bytes at a time."""
        reader, writer = await self._open("127.0.9.4", limit=512)
        writer.write(self.asked)
        with suppress(ConnectionError):
            while left() > 0 and await reader.read(64):
                self.counts["pieces that were read slowly"] += 1
                await asyncio.sleep(0.2)
        writer.close()

    async def hold(self, left: Callable[[], float]) -> None:
        """As many connections as one likes, none of which says anything."""
        made = [await self._open("127.0.9.5") for _ in range(self.connections)]
        self.counts["connections that said nothing"] += len(made)
        while left() > 0 and not all(reader.at_eof() for reader, _ in made):
            await asyncio.sleep(0.5)
        for _, writer in made:
            writer.close()

    async def _again(self, way: Callable, until: float) -> None:
        clock = asyncio.get_running_loop().time
        while clock() < until:
            with suppress(ConnectionError):
                await way(lambda: until - clock())
            await asyncio.sleep(0.2)

    async def _open(
        self, address: str, *, limit: int = 65536
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(
            self.host, self.port, limit=limit, local_addr=(address, 0)
        )
