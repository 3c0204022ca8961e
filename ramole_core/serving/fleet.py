"""The engines that are there, as the page sees them: each by a key, asked one at a time.

What carries the calls is behind it: Ray (`ray_fleet.py`), threads or processes in tests.
"""

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

from ramole_core.errors import RamoleError
from ramole_core.serving.wire import Job, Told

Heard = Told | Exception
"""What is heard of a request: what the engine tells, or why it ended without an answer."""


class EngineLost(Exception):
    """The engine is gone, and what it was asked may be asked of another."""


class PageSilent(EngineLost):
    """The engine has given up what it was asked: it had not heard of the page for too long."""


class NoEngine(RamoleError):
    """None is there."""

    def __init__(self, seconds: float):
        super().__init__(
            f"No engine has answered for {seconds:.0f} seconds; they start, or were stopped: try "
            "again in a moment."
        )


@runtime_checkable
class Fleet(Protocol):
    """Every thread may use it."""

    def keys(self) -> Sequence[str]:
        """Of the engines that can be asked now."""
        ...

    def call(self, key: str, name: str, *args: object) -> object:
        """What the engine's method of that name returns; raises what it raises, EngineLost where
        the engine is gone."""
        ...

    def tell(self, key: str, name: str, *args: object) -> None:
        """The same, without waiting for it; nobody hears what it meets."""
        ...

    def answer(
        self, key: str, job: Job, hear: Callable[[Sequence[Heard]], None]
    ) -> Callable[[], None]:
        """Begin a request; `hear` gets, in another thread, all that comes of it in order: at its
        end a Generation or an exception. Returns what cancels it: the Generation that
        comes then has what was made."""
        ...

    def close(self) -> None:
        """Ask no more."""
        ...
