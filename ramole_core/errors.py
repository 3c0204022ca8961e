"""Errors for users; each message has the value, what was expected, and what to do."""

import logging
from collections.abc import Iterable
from difflib import get_close_matches


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name closest to a mistyped one; None where none is close."""
    return next(iter(get_close_matches(name, list(known), 1, cutoff=0.6)), None)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` Did you mean 'k'?`, or nothing."""
    near = nearest(name, known)
    return f" Did you mean {near!r}?" if near else ""


class RamoleError(Exception):
    """Something the caller can put right; the message is one sentence fit to show to a user."""


class WrongField(RamoleError):
    """A field of a request that cannot be read."""

    def __init__(self, field: str, rest: str):
        super().__init__(f"{field}{rest}")
        self.field, self.rest = field, rest
        """The field's place in the request, and the sentence after it."""


class AdapterRefused(RamoleError):
    """An adapter, or a change to the pool, that cannot be accepted."""


def removed_meanwhile(name: str) -> RamoleError:
    """The error for an adapter that is gone before it could be read."""
    return RamoleError(
        f"The adapter {name} was removed while it was asked for; ask again, and others are found."
    )


class Busy(RamoleError):
    """The queue, the data folder or the engine is taken; try again."""


class Cancelled(RamoleError):
    """The caller no longer waits for the answers."""


class Unsupported(RamoleError):
    """A base model whose code computes what is not known here; the message is only the reason."""


log = logging.getLogger(__name__)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type where that is empty."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def fault_of(error: Exception, method: str) -> RamoleError:
    """The error as one sentence for the caller; unforeseen faults are logged."""
    if isinstance(error, RamoleError):
        return error
    log.error("A request failed in method %s.", method, exc_info=error)
    return RamoleError(
        f"Method {method} failed on this request ({type(error).__name__}: {error}); the other "
        "requests go on. Choose another method, or other adapters."
    )
