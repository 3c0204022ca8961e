"""Refusals wait where one address has many of them, so that a flood takes little of the server."""

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..session.address import HEADER, address_of
from ..session.counts import AddressCounts, AddressRates, Taken
from .refusal import header

REFUSALS_PER_SECOND, REFUSALS_AT_ONCE = 10, 100
"""Refusals of one address that are sent at once, those a second and so many more."""
WAIT_SECONDS = 10.0
"""Before each further one."""
MAX_WAITING = 1024
"""So many of one address wait; each holds a connection."""


class SlowRefusals:
    """ASGI middleware that holds a response back whose status is 400 or more, where its address had
    many of them of late."""

    def __init__(self, app: ASGIApp, *, most: int):
        """`most` of them wait in all."""
        self._app = app
        self._rates = AddressRates(rate=REFUSALS_PER_SECOND, burst=REFUSALS_AT_ONCE)
        self._waiting = AddressCounts(MAX_WAITING, most)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        address = address_of({HEADER: header(scope, HEADER) or ""})

        async def slowed(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] >= 400:
                await self._wait(address)
            await send(message)

        await self._app(scope, receive, slowed)

    async def _wait(self, address: str) -> None:
        try:
            self._rates.take(address)
        except Taken:
            try:
                with self._waiting.held(address):
                    await asyncio.sleep(WAIT_SECONDS)
            except Taken:
                pass
