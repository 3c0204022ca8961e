"""What one address can do to a page: each attack by itself, for as long as it may.

Every attack comes from `ADDRESS`; the honest are elsewhere. `counts` has what each was answered.
"""

import asyncio
import json
import os
import secrets
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from urllib.parse import urlsplit

import httpx

from ui.middleware.routes import UNUSED

ADDRESS = "127.0.9.9"
BEHIND = {"x-forwarded-for": "203.0.113.9"}
"""Of a proxy on this machine that the operator did not name: the address counts as unknown."""
JSON = {"content-type": "application/json"}
MIB = 2**20
MAX_UPLOAD = 256 * MIB
"""The longest body of an upload where MAX_UPLOAD_MB is unsaid."""
ELSEWHERE = "https://127.0.0.1:1/"
FILES = {"content-type": "multipart/form-data; boundary=x"}
FORM = (
    b'--x\r\nContent-Disposition: form-data; name="other"; filename="a.mp4"\r\n\r\n'
    + bytes(MIB)
    + b"\r\n--x--\r\n"
)
FILE = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.zip"\r\n\r\n'


class Attacker:
    """One address, as many connections as it likes."""

    def __init__(self, url: str):
        at = urlsplit(url)
        self.url, self.host, self.port = url, str(at.hostname), int(at.port or 80)
        self.counts: Counter[str] = Counter()
        self.over = asyncio.Event()

    async def post(
        self,
        client: httpx.AsyncClient,
        path: str,
        content: bytes,
        *,
        method: str = "POST",
        **headers: str,
    ) -> None:
        """One request, counted by what it got."""
        try:
            told = await client.request(method, path, content=content, headers={**JSON, **headers})
            self.counts[f"{told.status_code}"] += 1
        except httpx.HTTPError as error:
            self.counts[type(error).__name__] += 1
            await asyncio.sleep(0.05)

    def client(self) -> httpx.AsyncClient:
        transport = httpx.AsyncHTTPTransport(local_address=ADDRESS)
        return httpx.AsyncClient(transport=transport, base_url=self.url, timeout=30)

    async def again(self, work: Callable[[httpx.AsyncClient], Awaitable[None]], many: int) -> None:
        """The same from so many connections, until the attack is over."""

        async def one() -> None:
            async with self.client() as client:
                while not self.over.is_set():
                    await work(client)

        await asyncio.gather(*(one() for _ in range(many)))

    async def parts(self) -> None:
        """Bodies of millions of lists."""
        body = b'{"session_hash": "x", "fn_index": 0, "data": [' + b"[]," * 1_300_000 + b"[]]}"
        await self.again(lambda client: self.post(client, "/gradio_api/queue/join", body), 2)

    async def silent_bodies(self) -> None:
        """Long bodies that are silent after their beginning, of calls and of uploads."""
        await asyncio.gather(
            self.hold("/gradio_api/queue/join", 4 * MIB, sent=3 * MIB, many=8),
            self.hold("/gradio_api/upload", MAX_UPLOAD, 60 * MIB, 4, begin=FILE, kind=FILES),
        )

    async def recordings(self) -> None:
        """Files in fields that nobody asked for, whole and cut."""

        async def both(client: httpx.AsyncClient) -> None:
            for path in ("process_recording", "component_server"):
                await self.post(client, f"/gradio_api/{path}", FORM, **FILES)

        await asyncio.gather(
            self.again(both, 2), self.hold("/gradio_api/process_recording", 4 * MIB, MIB, 4)
        )

    async def sessions(self) -> None:
        """Every event of the page, each from a session of its own."""
        await self._events(lambda: secrets.token_hex(6))

    async def unread(self) -> None:
        """Every event of the page from one session, which reads nothing."""
        await self._events(lambda: "deaf")

    async def _events(self, session: Callable[[], str]) -> None:
        async with self.client() as client:
            config = (await client.get("/config")).json()
        events = list(_events(config))
        numbers = iter(range(10**9))

        async def invented(client: httpx.AsyncClient) -> None:
            event = {**events[next(numbers) % len(events)], "session_hash": session()}
            await self.post(client, "/gradio_api/queue/join", json.dumps(event).encode())

        await self.again(invented, 8)

    async def queue(self) -> None:
        """Calls whose answers nobody takes."""
        body = json.dumps({"data": []}).encode()
        path = "/gradio_api/call/list_adapters"
        await self.again(lambda client: self.post(client, path, body), 4)

    async def streams(self) -> None:
        """Streams that say nothing, as many as there may be."""
        await self.hold("/gradio_api/heartbeat/{}", 0, 0, 700)

    async def passwords(self) -> None:
        """Wrong passwords for a user that there is, from here and from behind a proxy: fewer at
        once than fill the line, where the right one is refused too (docs/hosting.md)."""

        async def guess(client: httpx.AsyncClient, **proxy: str) -> None:
            said = {"authorization": "Bearer ann:wrong", **proxy}
            await self.post(client, "/v1/chat/completions", b"{}", **said)

        await asyncio.gather(self.again(guess, 4), self.again(partial(guess, **BEHIND), 4))

    async def reloads(self) -> None:
        """The stream that Gradio has for who writes a page, and all else that it has and the page
        does not use: its assistant, saved links, other servers' pages."""

        async def each(client: httpx.AsyncClient) -> None:
            for path in UNUSED:
                path = path.replace("{*}", ELSEWHERE).replace("{}", "x")
                for method in ("GET", "POST"):
                    if not self.over.is_set():
                        await self.post(client, path, b"{}", method=method)

        await asyncio.gather(self.hold("/gradio_api/dev/reload", 0, 0, 400), self.again(each, 2))

    async def links(self) -> None:
        """The page's own page, its configuration, and others' in the place of files."""

        async def both(client: httpx.AsyncClient) -> None:
            for path in ("/", "/config", f"/gradio_api/file={ELSEWHERE}"):
                with suppress(httpx.HTTPError):
                    self.counts[f"{(await client.get(path)).status_code}"] += 1

        await self.again(both, 4)

    async def hosts(self) -> None:
        """The page and its configuration, each time for another name."""

        async def both(client: httpx.AsyncClient) -> None:
            name = {"x-forwarded-host": f"{secrets.token_hex(6)}.localhost"}
            for path in ("/", "/config"):
                with suppress(httpx.HTTPError):
                    self.counts[f"{(await client.get(path, headers=name)).status_code}"] += 1

        await self.again(both, 4)

    async def hold(
        self,
        path: str,
        length: int,
        sent: int,
        many: int,
        *,
        begin: bytes = b'"',
        kind: Mapping[str, str] = JSON,
    ) -> None:
        """So many connections with a request that says a length, sends less, and waits; each that
        is cut is opened anew."""
        body = begin.ljust(sent, b"x")[:sent]

        async def one() -> None:
            while not self.over.is_set():
                method = "POST" if length else "GET"
                said = f"{method} {path.format(secrets.token_hex(6))} HTTP/1.1\r\n"
                said += f"Host: {self.host}\r\nContent-Type: {kind['content-type']}\r\n"
                said += f"Content-Length: {length}\r\n\r\n" if length else "\r\n"
                with suppress(OSError, asyncio.IncompleteReadError):
                    reader, writer = await asyncio.open_connection(
                        self.host, self.port, local_addr=(ADDRESS, 0)
                    )
                    with ExitStack() as stack:
                        stack.callback(writer.close)
                        writer.write(said.encode() + body)
                        with suppress(TimeoutError):
                            await asyncio.wait_for(writer.drain(), 10)
                        over = asyncio.create_task(self.over.wait())
                        came = asyncio.create_task(self._answers(reader))
                        await asyncio.wait([over, came], return_when=asyncio.FIRST_COMPLETED)
                        over.cancel(), came.cancel()
                await asyncio.sleep(1.0)

        await asyncio.gather(*(one() for _ in range(many)))

    async def _answers(self, reader: asyncio.StreamReader) -> None:
        head = await reader.read(12)
        self.counts[head[9:12].decode("latin-1") or "cut"] += 1
        while await reader.read(65536):
            pass


@contextmanager
def attacking(url: str, names: Sequence[str]) -> Iterator[dict[str, int]]:
    """These attacks in a process of their own until the block ends; then the answers they got."""
    counts: dict[str, int] = {}
    if not names:
        yield counts
        return
    attacks = [sys.executable, "-m", "tests.campaigns.attacks", url, *names]
    command = ["nice", "-n", "19", *attacks]  # one elsewhere would take nothing of these cores
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()  # it begins
        try:
            yield counts
            told, _ = process.communicate(timeout=ENDING_SECONDS)
            counts |= json.loads(told)
        finally:
            process.kill()


async def attack(url: str, names: Sequence[str]) -> None:
    """These attacks until the standard input ends, and on a busy machine until one has an answer;
    prints the answers that they got, and ends the process with whatever is still open."""
    attacker = Attacker(url)
    attacks = [asyncio.create_task(getattr(attacker, name)()) for name in names]
    print("begun", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    end = time.monotonic() + ENDING_SECONDS / 2
    while not attacker.counts and time.monotonic() < end:
        await asyncio.sleep(0.1)
    attacker.over.set()
    await asyncio.wait(attacks, timeout=ENDING_SECONDS / 12)  # refusals may wait longer
    print(json.dumps(dict(sorted(attacker.counts.items()))), flush=True)
    os._exit(0)


ENDING_SECONDS = 60.0
ATTACKS = (
    *("parts", "silent_bodies", "recordings", "sessions", "unread", "queue"),
    *("streams", "reloads", "links", "hosts"),
)
"""Of a page without passwords; `passwords` is for one with them."""


def _events(config: dict):
    """A body for each event of the page, with the values that its components begin with."""
    values = {one["id"]: one.get("props", {}).get("value") for one in config["components"]}
    kinds = {one["id"]: one["type"] for one in config["components"]}
    for event in config["dependencies"]:
        data = [
            values.get(one) or ("one two\n" * 2000 if kinds.get(one) == "textbox" else None)
            for one in event["inputs"]
        ]
        yield {"fn_index": event["id"], "data": data}


if __name__ == "__main__":
    asyncio.run(attack(sys.argv[1], sys.argv[2:]))
