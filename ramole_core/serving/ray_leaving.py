"""Report a client's disconnect to the page as other servers do.

Serve then cancels all that runs for the request, its own question for the visitor's next message
too, and the page would be raised that from `receive`, as a fault of its own, and after that never
be answered.
"""

import logging
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import InvalidStateError
from typing import Any

from ray.exceptions import TaskCancelledError

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]
GONE = {"type": "http.disconnect"}


class NobodysResult(logging.Filter):
    """Drop Ray's report of a result whose future was cancelled at the same moment: Ray looks
    whether it is awaited, and sets its result, in two steps."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record stays."""
        return not (record.exc_info and isinstance(record.exc_info[1], InvalidStateError))


def ignore_nobodys_results() -> None:
    """Install `NobodysResult` in this process."""
    logging.getLogger("ray._raylet").addFilter(NobodysResult())


def with_leaving(app: App) -> App:
    """Wrap the application: a cancelled `receive` becomes a disconnect; other errors stay
    faults."""

    async def told(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        gone = False

        async def receive_or_leave() -> Message:
            nonlocal gone
            try:
                return dict(GONE) if gone else await receive()
            except TaskCancelledError:
                gone = True
                return dict(GONE)

        await app(scope, receive_or_leave if scope["type"] == "http" else receive, send)

    return told
