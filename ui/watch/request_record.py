"""The record of one request: outcome, counts and seconds, without its texts; and its log line.

A visitor's texts (prompt, answer, names of uploads) and identity (session, address) have no field
here, so no counter or line can contain them.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from threading import Lock
from typing import TextIO

from ramole_core import AdapterRefused, Busy, Generation, RamoleError, Request

ANSWERED = ("eos", "stop", "length", "cancelled")
REFUSED, FAILED = "refused", "failed"
FAULT = "fault"
"""Reason of a failure of the server itself."""


@dataclass(frozen=True)
class RequestRecord:
    """One request, or a call that never became one."""

    outcome: str
    """`eos`, `stop`, `length`, `cancelled`, `refused`, or `failed`: a fault of ours."""
    reason: str | None = None
    """Why it was refused: one of a few words."""
    method: str | None = None
    """Method of an answer."""
    adapters: int | None = None
    """Number of mixed adapters."""
    prompt_tokens: int | None = None
    new_tokens: int | None = None
    seconds: float | None = None
    """From the queue to the last token."""
    first_token_seconds: float | None = None
    queue_seconds: float | None = None
    retrieve_seconds: float | None = None


def record_of(request: Request, answer: Generation) -> RequestRecord:
    extra = answer.extra
    return RequestRecord(
        outcome=answer.finish_reason if answer.finish_reason in ANSWERED else FAILED,
        method=answer.method or request.method,  # one that there is, or there were no answer
        adapters=len(answer.adapters),
        prompt_tokens=answer.prompt_tokens,
        new_tokens=answer.new_tokens,
        seconds=round(answer.seconds, 4),
        first_token_seconds=round(answer.first_token_seconds, 4) if answer.new_tokens else None,
        queue_seconds=_rounded(extra.get("queue")),
        retrieve_seconds=_rounded(extra.get("retrieve")),
    )


def record_of_error(error: BaseException) -> RequestRecord:
    reason = reason_of(error)
    return RequestRecord(FAILED) if reason in (None, FAULT) else RequestRecord(REFUSED, reason)


def reason_of(error: BaseException) -> str | None:
    """The reason of a refusal, one of a few words; None for an unforeseen fault."""
    said = getattr(error, "reason", None)
    if isinstance(said, str):
        return said
    if isinstance(error, Busy):
        return "busy"
    if isinstance(error, AdapterRefused):
        return "adapter"
    return "invalid" if isinstance(error, RamoleError) else None


def line_of(told: RequestRecord, now: datetime) -> str:
    """The line of JSON, with every field each time; what is not known is null."""
    return json.dumps({"time": now.isoformat(timespec="milliseconds"), **asdict(told)})


def writing(out: TextIO | None = None) -> Callable[[RequestRecord], None]:
    """Return a writer of lines to `out` (the standard output), whole, from any thread."""
    lock, target = Lock(), out or sys.stdout

    def write(told: RequestRecord) -> None:
        line = line_of(told, datetime.now(UTC))
        with lock:
            target.write(line + "\n")
            target.flush()

    return write


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 4)
