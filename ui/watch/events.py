"""Events of the page: an answer ended, a call was refused, an upload came.

The numbers always get them; the log of requests where the operator wants one. Of a whole process,
as the counters of Prometheus are.
"""

from collections.abc import Callable

from ramole_core import Generation, Request

from .numbers import count, retrieved as retrieved, uploaded as uploaded
from .request_record import RequestRecord, record_of, record_of_error

_listeners: list[Callable[[RequestRecord], None]] = [count]
_MARK = "told to the operator"


def listen(listener: Callable[[RequestRecord], None]) -> None:
    """Register `listener`, called in any thread with each request's record."""
    if listener not in _listeners:
        _listeners.append(listener)


def answered(request: Request, answer: Generation) -> None:
    _notify(record_of(request, answer))


def refused(error: BaseException) -> None:
    """Record a call's error, once however often it is reported."""
    if _MARK not in vars(error):
        vars(error)[_MARK] = True
        _notify(record_of_error(error))


def _notify(told: RequestRecord) -> None:
    for listener in list(_listeners):
        listener(told)
