"""A visitor of a running server, by plain HTTP: what he does of it, his own dice say.

What it asks was asked alone before, so each token is compared; what it is refused may only be that
the server is busy.
"""

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

TIMEOUT = httpx.Timeout(600, connect=60)
KEPT = httpx.Limits(keepalive_expiry=2)
"""Less than the server keeps a connection for: who asks as it closes may go unheard."""
BUSY = ("busy", "queue is full", "no room")


@dataclass(frozen=True)
class Question:
    """What is asked, and under which number of a file it needs an upload first, if any."""

    said: Mapping[str, object]
    upload: int | None = None

    @property
    def key(self) -> str:
        return json.dumps([self.said, self.upload], sort_keys=True)


@dataclass
class Seen:
    """What came of all visitors together; the lists must stay empty."""

    alone: dict[str, tuple[str, list[int]]] = field(default_factory=dict)
    """By question: text and tokens."""
    counts: Counter[str] = field(default_factory=Counter)
    different: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    def compare(self, question: Question, text: str, ids: Sequence[int] | None) -> None:
        """A whole answer; `ids` None: a door that tells no tokens."""
        alone_text, alone_ids = self.alone[question.key]
        self.counts["answers"] += 1
        self.counts["tokens"] += len(alone_ids)
        if text != alone_text or (ids is not None and list(ids) != alone_ids):
            self.different.append(f"{question.key}: {text!r} and alone {alone_text!r}")

    def compare_start(self, question: Question, text: str) -> None:
        """An answer that was stopped."""
        self.counts["stopped"] += 1
        if not self.alone[question.key][0].startswith(text):
            self.different.append(f"{question.key} began with {text!r}")

    def refuse(self, what: str, sentence: str) -> None:
        """A call that was refused."""
        if any(word in sentence.lower() for word in BUSY):
            self.counts["busy"] += 1
        else:
            self.refused.append(f"{what}: {sentence[:300]}")


class Refused(Exception):
    """The sentence that a call got for an answer."""


class Visitor:
    """One client with an address of its own, a session of its own, and its own dice."""

    def __init__(self, url: str, number: int, *, seen: Seen, files: Sequence[Path], seed: int):
        self.number, self.seen, self.files = number, seen, files
        self.random = random.Random(f"{seed} {number}")
        address = f"127.0.{1 + number // 200}.{1 + number % 200}"
        self.http = httpx.AsyncClient(
            base_url=url,
            transport=httpx.AsyncHTTPTransport(local_address=address, limits=KEPT),
            headers={"x-ramole-session": f"visitor {number} of seed {seed}, a secret"},
            timeout=TIMEOUT,
        )

    async def stay(self, questions: Sequence[Question], until: float) -> None:
        """Do one thing after another until that time of the loop."""
        ways = (self.ask, self.ask, self.chat, self.stop_asking, self.stop_chat, self.batch)
        clock = asyncio.get_running_loop().time
        async with self.http:
            while clock() < until:
                question = self.random.choice(questions)
                if question.upload is not None:
                    way = self.upload_and_ask
                else:
                    way = self.random.choice(ways)
                try:
                    await way(question)
                    self.seen.counts[way.__name__] += 1
                except Refused as refused:
                    self.seen.refuse(way.__name__, str(refused))
                    await asyncio.sleep(self.random.uniform(0.1, 0.6))

    async def ask(self, question: Question) -> None:
        """The whole answer, from Gradio's door."""
        text, how = await self.result("ask", question.said)
        self.seen.compare(question, text, how["token_ids"])

    async def alone(self, question: Question) -> None:
        """The same, to be compared with later."""
        async with self.uploaded(question):
            text, how = await self.result("ask", question.said)
        self.seen.alone[question.key] = (text, how["token_ids"])

    async def upload_and_ask(self, question: Question) -> None:
        """An adapter comes, is asked by its name, and goes."""
        async with self.uploaded(question):
            await self.ask(question)

    async def batch(self, question: Question) -> None:
        """Several prompts in one call."""
        asked = [question, question, question]
        (answers,) = await self.result("ask_batch", {"prompts": [dict(one.said) for one in asked]})
        for one, answer in zip(asked, answers, strict=True):
            self.seen.compare(one, answer["text"], answer["token_ids"])

    async def stop_asking(self, question: Question) -> None:
        """Leave an answer of Gradio's door while it comes."""
        text = ""
        async for event, data in self.events("ask", question.said):
            if event == "error":
                raise Refused(str(data))
            if event in ("generating", "complete") and data:
                text = data[0]
                if text and self.random.random() < 0.5:
                    break
        self.seen.compare_start(question, text)

    async def chat(self, question: Question) -> None:
        """The whole answer, from OpenAI's door."""
        self.seen.compare(question, "".join([piece async for piece in self.pieces(question)]), None)

    async def stop_chat(self, question: Question) -> None:
        """Leave an answer of OpenAI's door while it comes."""
        text, wanted = "", self.random.randrange(1, 12)
        async for piece in self.pieces(question):
            text += piece
            if len(text) >= wanted:
                break
        self.seen.compare_start(question, text)

    @asynccontextmanager
    async def uploaded(self, question: Question) -> AsyncIterator[None]:
        """The question's file is in the pool meanwhile, where it has one."""
        if question.upload is None:
            yield
            return
        file = self.files[question.upload]
        sent = await self.http.post(
            "/gradio_api/upload", files={"files": (file.name, file.read_bytes())}
        )
        if sent.status_code != 200:
            raise Refused(sent.text)
        stored = {"path": sent.json()[0], "meta": {"_type": "gradio.FileData"}}
        said = {"file": stored, "name": file.stem, "examples": ["nobody would ask for this"]}
        await self.result("add_adapter", said)
        self.seen.counts["uploads"] += 1
        try:
            yield
        finally:
            await self.removed(file.stem)

    async def removed(self, name: str) -> None:
        """An upload is gone; while the server is busy, this is tried again."""
        while True:
            try:
                await self.result("remove_adapter", {"name": name})
                return
            except Refused as refused:
                if not any(word in str(refused).lower() for word in BUSY):
                    raise
                await asyncio.sleep(0.3)

    async def result(self, endpoint: str, said: Mapping[str, object]) -> list:
        """What an endpoint answers in the end; raises Refused with its sentence."""
        async for event, data in self.events(endpoint, said):
            if event == "error":
                raise Refused(str(data))
            if event == "complete":
                return data
        raise Refused("the stream ended before its answer")

    async def events(
        self, endpoint: str, said: Mapping[str, object]
    ) -> AsyncIterator[tuple[str, list]]:
        """What comes of a call, event by event."""
        sent = await self.http.post(f"/gradio_api/call/v2/{endpoint}", json=dict(said))
        if sent.status_code != 200:
            raise Refused(sent.text)
        url = f"/gradio_api/call/v2/{endpoint}/{sent.json()['event_id']}"
        event = ""
        async with self.http.stream("GET", url) as lines:
            async for line in lines.aiter_lines():
                name, _, rest = line.partition(": ")
                if name == "event":
                    event = rest
                elif name == "data":
                    yield event, json.loads(rest)

    async def pieces(self, question: Question) -> AsyncIterator[str]:
        """An answer of OpenAI's door as it grows; raises Refused."""
        said = dict(question.said)
        body = {
            "model": said["method"],
            "messages": [{"role": "user", "content": said["prompt"]}],
            "max_tokens": said["max_new_tokens"],
            "stream": True,
            "ramole": {"k": said["k"]},
        }
        async with self.http.stream("POST", "/v1/chat/completions", json=body) as lines:
            if lines.status_code != 200:
                raise Refused((await lines.aread()).decode())
            async for line in lines.aiter_lines():
                if line.startswith("data: {"):
                    told = json.loads(line[6:])
                    if "error" in told:
                        raise Refused(told["error"]["message"])
                    for choice in told["choices"]:
                        yield choice["delta"].get("content") or ""
