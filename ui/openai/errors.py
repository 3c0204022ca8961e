"""Errors as OpenAI's clients read them: `{"error": {"message", "type", "param", "code"}}`."""

import json
import logging

from starlette.responses import Response

from ramole_core import Busy, RamoleError

from ..middleware import refusal
from ..parts.errors import UNEXPECTED
from ..watch.events import refused as note_refused

log = logging.getLogger(__name__)
RETRY_SECONDS = 2
"""Retry-After of a busy server, in seconds; OpenAI's clients retry by themselves."""
REASONS = {
    "busy": "busy",
    "model_loading": "loading",
    "model_not_loaded": "loading",
    "invalid_api_key": "password",
    "guesses": "guesses",
    "ending": "ending",
}
"""Error types by code; any other refusal is an invalid request."""
MAX_QUOTED = 200
"""Characters of a parameter's name that an error quotes."""


class Refused(refusal.Refused):
    """A refused call; the message is one sentence."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        param: str | None = None,
        code: str | None = None,
        retry_after: float = 0,
    ):
        reason = REASONS.get(code or "", "invalid")
        super().__init__(status, message, retry=retry_after, reason=reason)
        self.param, self.code = param and param[:MAX_QUOTED], code

    @property
    def body(self) -> dict:
        return refusal.openai_body(self, param=self.param, code=self.code)

    @property
    def response(self) -> Response:
        headers = {"Retry-After": str(max(1, round(self.retry)))} if self.retry else {}
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        text = json.dumps(self.body)  # in ASCII: what came may be no UTF-8
        return Response(text, self.status, headers, media_type="application/json")


def refused(error: Exception) -> Refused:
    """The refusal for any error; unforeseen ones are logged."""
    note_refused(error)
    if isinstance(error, Refused):
        return error
    if isinstance(error, refusal.Refused):
        return Refused(str(error), status=error.status, retry_after=error.retry)
    if isinstance(error, Busy):
        return Refused(str(error), status=429, code="busy", retry_after=RETRY_SECONDS)
    if isinstance(error, RamoleError):
        return Refused(str(error))
    log.error("A call of the OpenAI door failed.", exc_info=error)
    return Refused(UNEXPECTED, status=500)
