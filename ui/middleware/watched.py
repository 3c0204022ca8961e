"""The outermost middleware: count responses, and turn faults into one sentence.

Gradio lets badly formed calls fall through to the server, which would log a traceback for each,
with what came in it.
"""

import json
import logging
import re
from collections.abc import Sequence
from contextlib import suppress

from gradio.route_utils import FnIndexInferError
from httpx import InvalidURL
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..parts.errors import UNEXPECTED
from ..watch.events import RESPONSES
from ..watch.quiet import one_line
from ..watch.request_record import FAULT
from .refusal import HttpMiddleware, Refused

log = logging.getLogger(__name__)
CALLS = "/gradio_api/"
DIRECT = ("/gradio_api/run/", "/gradio_api/api/")
"""Routes where Gradio answers 500 for a handler's refusals too."""
FRAMES = "'self' https://huggingface.co https://*.huggingface.co https://*.hf.space"
"""Whose pages may show this one in a frame, beside those of RAMOLE_ALLOWED_HOSTS: a Space is shown
by huggingface.co."""
OTHER_VALUES = "There is no such endpoint, or its parameters are others; /gradio_api/info has them."
PARAMETERS = {
    "Parameter `(\\w{1,60})` is not a valid key-word": "This endpoint has no parameter {}",
    "No value provided for required argument: (\\w{1,60})": "The parameter {} is missing",
}
"""Gradio's words for a call whose parameters are others, and ours."""
UNFIT = (FnIndexInferError, InvalidURL, KeyError, TypeError, ValueError)
"""Gradio's errors for a call with an unknown endpoint or parameter."""


class Watched(HttpMiddleware):
    """ASGI middleware, before all others; each response gets headers that bind browsers."""

    def __init__(self, app: ASGIApp, *, frames: Sequence[str] = ()):
        """`frames`: further names whose pages may show this one."""
        super().__init__(app)
        said = " ".join(("frame-ancestors", FRAMES, *frames))
        self._headers = [
            (b"content-security-policy", said.encode()),
            (b"x-content-type-options", b"nosniff"),
        ]

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        started, held = False, False
        direct = any(path in scope["path"] for path in DIRECT)
        unclear = {500, 422} if direct else {422} if CALLS in scope["path"] else set()

        async def counted(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                RESPONSES.labels(f"{message['status'] // 100}xx").inc()
                message = {**message, "headers": [*message.get("headers", ()), *self._headers]}
            await send(message)

        async def judged(message: Message) -> None:
            """Correct the status of a direct call, whose refusals Gradio sends as 500, and give a
            sentence for a body that is no call."""
            nonlocal held
            if message.get("status") in unclear:
                held = True
            elif not held:
                await counted(message)
            elif not started:
                await _refused(message.get("body", b""))(scope, receive, counted)

        try:
            await self._app(scope, receive, judged)
        except Exception as error:
            log.warning("A request failed: %s", one_line(error))
            if not started:  # one that had begun cannot go on: the server closes its connection
                await _refusal(scope, error).respond(scope, receive, counted)


def _refused(body: bytes) -> JSONResponse:
    """The refusal of values that a handler, or Gradio, did not take."""
    sentence = None
    with suppress(ValueError, AttributeError):
        sentence = json.loads(body).get("error")
    status = 500 if sentence == UNEXPECTED else 422
    return JSONResponse({"error": sentence or OTHER_VALUES}, status)


def _unfit(said: str) -> str:
    for words, ours in PARAMETERS.items():
        if found := re.match(words, said):
            return f"{ours.format(found[1])}; /gradio_api/info lists what it takes."
    return OTHER_VALUES


def _refusal(scope: Scope, error: Exception) -> Refused:
    if isinstance(error, UNFIT) and (CALLS in scope["path"] or scope.get("query_string")):
        return Refused(422, _unfit(str(error)), reason="invalid")
    return Refused(500, "Something went wrong on the server; try again.", reason=FAULT)
