"""Leases of pages at an engine: when one counts as gone.

A page says every two seconds that it is there; what runs for one that has been silent for
half a minute is given up. Nothing is lost by that: a page that is there after all, and was only
slow, gets the error of a lost engine, and sends the request again with the tokens that it has.

Silence is counted in turns of the loop that serves the pages, not by a clock: a loop that stood
still, because the engine was busy or its machine was, has not looked, and counts one look for all
of that time. Whatever a page asks is a sign of it, too.
"""

import asyncio
from collections.abc import Callable

LEASE_SECONDS = 30.0
"""Seconds without a word after which a page is gone."""
POLL_SECONDS = 1.0


class Leases:
    """The leases of one engine; all of it runs in one event loop."""

    def __init__(self, gone: Callable[[str], None]):
        """`gone` is called with each page that has fallen silent."""
        self._gone = gone
        self._looks: dict[str, int] = {}
        """Since each page last called."""
        self._watching: asyncio.Task[None] | None = None

    def renew(self, page: str) -> None:
        """Renew the page's lease; "" is no page."""
        if not page:
            return
        self._looks[page] = 0
        if self._watching is None or self._watching.done():
            self._watching = asyncio.get_running_loop().create_task(self._watch())

    async def _watch(self) -> None:
        """Check the leases while there are any."""
        while self._looks:
            await asyncio.sleep(POLL_SECONDS)
            for page in list(self._looks):
                self._looks[page] += 1
                if self._looks[page] * POLL_SECONDS > LEASE_SECONDS:
                    del self._looks[page]
                    self._gone(page)
