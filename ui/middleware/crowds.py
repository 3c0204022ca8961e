"""Limits of requests in progress, by kind, from one address and in all; and of an address's events:
those a second, and those in Gradio's shared queue."""

from collections.abc import Iterable
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from ..session.address import HEADER, address_of
from ..session.counts import AddressCounts, AddressRates, Taken
from .refusal import Refused, header
from .routes import MAX_OPEN, Kind, rule_of

SHARE = 4
"""An address may have one in so many of the places in Gradio's queue, and half of those who run."""
EVENTS_PER_SECOND = 10
"""Gradio's events and calls of one address; each takes some milliseconds of the server. Requests of
OpenAI's door and of MCP have no such limit: what they ask for waits in the queue, in turn."""
EVENTS_AT_ONCE = 200
"""So many more are taken at once."""
EVENTS: tuple[Kind, ...] = ("call", "direct")


class Crowds:
    """ASGI middleware that refuses requests beyond the limits."""

    def __init__(self, app: ASGIApp, *, streams: int):
        """`streams`: most of them in all, as the process has descriptors."""
        self._app = app
        self._counts: dict[Kind, AddressCounts] = {
            kind: AddressCounts(most.address, min(most.all, streams))
            for kind, most in MAX_OPEN.items()
        }
        self._rates = AddressRates(rate=EVENTS_PER_SECOND, burst=EVENTS_AT_ONCE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        rule, said = rule_of(scope), header(scope, HEADER) or ""
        address = address_of({HEADER: said})
        try:
            if rule.queued and address:
                _refuse_waiting(scope["app"].get_blocks()._queue, said)
            counts = self._counts[rule.kind]
            try:
                if rule.kind in EVENTS:
                    self._rates.take(address)
                counts.take(address)
            except Taken as taken:
                raise crowded(near=taken.near) from None
        except Refused as refused:
            await refused.respond(scope, receive, send)
            return
        try:
            await self._app(scope, receive, send)
        finally:
            counts.give_back(address)


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


def crowded(*, near: bool) -> Refused:
    """The refusal of one request too many."""
    whose = "from your address " if near else ""
    return Refused(
        429 if near else 503,
        f"The server is busy: too many requests {whose}are in progress; try again in a moment.",
        retry=2,
        reason="too_many",
    )
