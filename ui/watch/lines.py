"""The log of requests: one line of JSON each, on the standard output, for `jq` and its like."""

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from threading import Lock
from typing import TextIO

from .request_record import RequestRecord


def line_of(told: RequestRecord, now: datetime) -> str:
    """The line, with every field each time; what is not known is null."""
    return json.dumps({"time": now.isoformat(timespec="milliseconds"), **asdict(told)})


def writing(out: TextIO | None = None) -> Callable[[RequestRecord], None]:
    """What writes lines to `out` (the standard output), whole, from any thread."""
    lock, target = Lock(), out or sys.stdout

    def write(told: RequestRecord) -> None:
        line = line_of(told, datetime.now(UTC))
        with lock:
            target.write(line + "\n")
            target.flush()

    return write
