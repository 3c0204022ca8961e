"""Errors for users; each message says what came, what was expected, and what to do."""

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that a mistyped one is like; None where none is."""
    return next(iter(get_close_matches(name, list(known), 1, cutoff=0.6)), None)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` Did you mean 'k'?`, or nothing."""
    near = nearest(name, known)
    return f" Did you mean {near!r}?" if near else ""


class RamoleError(Exception):
    """Something the caller can put right; the message is one sentence fit to show to a user."""


class WrongField(RamoleError):
    """A field of a request that cannot be read; says which."""

    def __init__(self, field: str, rest: str):
        super().__init__(f"{field}{rest}")
        self.field, self.rest = field, rest
        """The field's place in the request, and the sentence after it."""


class AdapterRefused(RamoleError):
    """An adapter, or a change to the pool, that cannot be accepted."""


class Busy(RamoleError):
    """The queue, the data folder or the engine is taken; try again."""


class Cancelled(RamoleError):
    """Nobody waits for the answers any more."""


class Unsupported(RamoleError):
    """A base model whose code computes what is not known here; the message is the reason alone."""
