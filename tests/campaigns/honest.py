"""Honest clients of a siege: each asks from an address of its own and sees its answers come.

Where the page asks for passwords, most of them bring a key; some log in anew before each question,
with the right password, from where the attacker guesses.
"""

import asyncio
import json
import time
from contextlib import suppress
from dataclasses import dataclass, field

import httpx

from tests.campaigns.attacks import ADDRESS, BEHIND

KEY: dict[str, str] = {}
"""The headers of a key, where the page asks for one."""
USER, PASSWORD = "ann", "a right one"
PASSWORDS_AMONG = 8
"""One of so many clients logs in; in turn from the attacker's address and an unknown one."""
PROMPT = "Fix the capital letters in the following text: i live in paris"


@dataclass
class Turn:
    """What the honest saw."""

    first: list[float] = field(default_factory=list)
    """Seconds to each first token."""
    logins: list[float] = field(default_factory=list)
    """Seconds of each login."""
    refused: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    attacker: dict[str, int] = field(default_factory=dict)


async def ask_on(url: str, number: int, turn: Turn, over: asyncio.Event) -> None:
    """Ask again and again until it is `over`, as client `number`."""
    transport = httpx.AsyncHTTPTransport(local_address=_own(number))
    said = {"prompt": PROMPT, "max_new_tokens": 8, "method": "mixture"}
    logs_in = bool(KEY) and number % PASSWORDS_AMONG == 0
    headers = {} if logs_in else KEY
    async with httpx.AsyncClient(
        transport=transport, base_url=url, timeout=600, headers=headers
    ) as client:
        while not over.is_set():
            try:
                if logs_in:
                    client.cookies = await _log_in(url, number, turn)
                began = time.monotonic()
                sent = await client.post("/gradio_api/call/v2/ask", json=said)
                if sent.status_code != 200:
                    turn.refused.append(f"{sent.status_code} {sent.text[:120]}")
                    continue
                event = sent.json()["event_id"]
                whole = await _answer(client, event, turn, began)
                if not whole:
                    turn.lost.append("a stream ended before its answer")
            except (httpx.HTTPError, json.JSONDecodeError) as error:
                turn.lost.append(f"{type(error).__name__}")
            with suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), 0.3)


async def _log_in(url: str, number: int, turn: Turn) -> httpx.Cookies:
    """What the right password opens, from the attacker's address or, as behind a proxy, from an
    unknown one."""
    near = number // PASSWORDS_AMONG % 2 == 0
    transport = httpx.AsyncHTTPTransport(local_address=ADDRESS if near else _own(number))
    said, began = {"username": USER, "password": PASSWORD}, time.monotonic()
    async with httpx.AsyncClient(transport=transport, base_url=url, timeout=600) as client:
        told = await client.post("/login", data=said, headers={} if near else BEHIND)
    if told.status_code == 200:
        turn.logins.append(time.monotonic() - began)
    else:
        turn.refused.append(f"the right password: {told.status_code} {told.text[:120]}")
    return told.cookies


async def _answer(client: httpx.AsyncClient, event: str, turn: Turn, began: float) -> bool:
    """Whether the answer came whole; its first token is noted."""
    kind, heard = "", False
    async with client.stream("GET", f"/gradio_api/call/ask/{event}") as lines:
        async for line in lines.aiter_lines():
            name, _, rest = line.partition(": ")
            if name == "event":
                kind = rest
            elif name == "data" and kind == "error":
                turn.refused.append(rest[:120])
                return True
            elif name == "data" and kind in ("generating", "complete"):
                if not heard and (json.loads(rest) or [""])[0]:
                    heard = True
                    turn.first.append(time.monotonic() - began)
                if kind == "complete":
                    return True
    return False


def _own(number: int) -> str:
    return f"127.0.1.{1 + number}"
