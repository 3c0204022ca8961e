"""Limits by address and in all: requests in progress by kind, events a second and those in Gradio's
shared queue, and refusals, which wait where one address has many of them."""

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..session.address import HEADER
from ..session.counts import AddressCounts, AddressRates, Taken
from .refusal import HttpMiddleware, address_in, crowded, header
from .routes import MAX_OPEN, Kind, rule_of

SHARE = 4
"""An address may have one in so many places of Gradio's queue, and half of the running ones."""
EVENTS_PER_SECOND = 10
"""Gradio's events and calls of one address; each takes some milliseconds of the server. Requests of
the OpenAI API and of MCP have no such limit: their prompts wait in the queue, in turn."""
EVENT_BURST = 200
"""Burst beyond that rate."""
EVENTS: tuple[Kind, ...] = ("call", "direct")
REFUSALS_PER_SECOND, REFUSAL_BURST = 10, 100
"""Refusals of one address that are sent at once, those a second and so many more."""
WAIT_SECONDS = 10.0
"""Delay of each further refusal."""
MAX_WAITING = 1024
"""Most delayed refusals of one address; each holds a connection."""


class Crowds(HttpMiddleware):
    """ASGI middleware that refuses requests beyond the limits."""

    def __init__(self, app: ASGIApp, *, streams: int):
        """`streams`: most of them in all, as the process has descriptors."""
        super().__init__(app)
        self._counts: dict[Kind, AddressCounts] = {
            kind: AddressCounts(most.address, min(most.all, streams))
            for kind, most in MAX_OPEN.items()
        }
        self._rates = AddressRates(rate=EVENTS_PER_SECOND, burst=EVENT_BURST)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        rule, address = rule_of(scope), address_in(scope)
        if rule.queued and address:
            _refuse_waiting(scope["app"].get_blocks()._queue, header(scope, HEADER) or "")
        if rule.kind in EVENTS:
            self._rates.take(address)
        with self._counts[rule.kind].held(address):
            await self._app(scope, receive, send)


def _refuse_waiting(queue: Any, said: str) -> None:
    """Raise Refused where the header's address has used its share of the queue."""
    waiting, running = max(queue.max_size // SHARE, 1), max(queue.max_thread_count // 2, 1)
    if len(queue) >= waiting:
        lines = [one.queue for one in queue.event_queue_per_concurrency_id.values()]
        if _mine((event for line in lines for event in line), said) >= waiting:
            raise crowded(near=True)
    if len(queue.event_ids_to_events) >= running:
        if _mine(list(queue.event_ids_to_events.values()), said) >= running:
            raise crowded(near=True)


def _mine(events: Iterable[Any], said: str) -> int:
    return sum(event.request.headers.get(HEADER) == said for event in events)


class SlowRefusals(HttpMiddleware):
    """ASGI middleware that holds a response back whose status is 400 or more, where its address had
    many of them of late."""

    def __init__(self, app: ASGIApp, *, most: int):
        """`most` of them wait in all."""
        super().__init__(app)
        self._rates = AddressRates(rate=REFUSALS_PER_SECOND, burst=REFUSAL_BURST)
        self._waiting = AddressCounts(MAX_WAITING, most)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        address = address_in(scope)

        async def slowed(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] >= 400:
                await self._wait(address)
            await send(message)

        await self._app(scope, receive, slowed)

    async def _wait(self, address: str) -> None:
        try:
            self._rates.take(address)
        except Taken:
            with suppress(Taken), self._waiting.held(address):
                await asyncio.sleep(WAIT_SECONDS)
