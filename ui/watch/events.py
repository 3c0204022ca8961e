"""Where the page says what happened: an answer ended, a call was refused, an upload came.

Numbers always hear it; the log of requests where the operator wants one. Of a whole process, as the
counters of Prometheus are.
"""

from collections.abc import Callable

from ramole_core import Generation, Request

from .numbers import count, count_retrieval, count_upload
from .request_record import RequestRecord, record_of, record_of_error

_listeners: list[Callable[[RequestRecord], None]] = [count]
_MARK = "told to the operator"


def listen(hear: Callable[[RequestRecord], None]) -> None:
    """Have `hear` called, in any thread, with what is told of each request from now on."""
    if hear not in _listeners:
        _listeners.append(hear)


def answered(request: Request, answer: Generation) -> None:
    """An answer ended."""
    _notify(record_of(request, answer))


def refused(error: BaseException) -> None:
    """A call ended with this error; told once, however many hands it passes through."""
    if _MARK not in vars(error):
        vars(error)[_MARK] = True
        _notify(record_of_error(error))


def retrieved(seconds: float) -> None:
    """Somebody looked for adapters without asking anything."""
    count_retrieval(seconds)


def uploaded(outcome: str) -> None:
    """An upload was judged: `usable`, `usable with a note`, `known` or `refused`."""
    count_upload(outcome)


def _notify(told: RequestRecord) -> None:
    for hear in list(_listeners):
        hear(told)
