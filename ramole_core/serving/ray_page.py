"""The page as a deployment of Ray Serve: pool, retrieval and the page's application, no model.

A client's disconnect reaches the page as from other servers. Serve cancels all that runs for the
request, its own question for the visitor's next message too, and the page would be raised that from
`receive`, as a fault of its own, and after that never be answered.
"""

import logging
from concurrent.futures import InvalidStateError
from typing import Any

from ray import serve
from ray.exceptions import TaskCancelledError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ramole_core.ramole import Ramole
from ramole_core.serving.opening import engines_over
from ramole_core.serving.ray_fleet import RayFleet
from ramole_core.serving.served_engine import located
from ramole_core.settings import Settings

GONE = {"type": "http.disconnect"}


@serve.ingress()
class ServedPage:
    """The one replica of the page; it holds the writer lock of the pool's folder."""

    def __init__(self, settings: dict[str, object], engines: str, page: str):
        """`engines` is their application; `page` names what makes the page's own application of a
        `Ramole`, as `module:function`."""
        said = Settings(**settings)  # pyright: ignore[reportArgumentType] checked by pydantic
        self._ramole = Ramole(said, engines=engines_over(RayFleet(engines)))
        self._page = page

    def __serve_build_asgi_app__(self) -> Any:
        ignore_cancelled_results()
        return with_leaving(located(self._page)(self._ramole))

    def __del__(self) -> None:
        self._ramole.close()


def ignore_cancelled_results() -> None:
    """Drop Ray's error reports of a future that was cancelled between Ray's check and its
    set_result."""
    logging.getLogger("ray._raylet").addFilter(
        lambda record: not (record.exc_info and isinstance(record.exc_info[1], InvalidStateError))
    )


def with_leaving(app: ASGIApp) -> ASGIApp:
    """Wrap the application: a cancelled `receive` becomes a disconnect; other errors stay
    faults."""

    async def told(scope: Scope, receive: Receive, send: Send) -> None:
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
