"""The page's interface to live engines, each addressed by a key.

What carries the calls is behind it: Ray (`ray_fleet.py`), threads or processes in tests.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from ramole_core.errors import RamoleError
from ramole_core.serving.wire import Job, News

Item = News | Exception
"""A message about a request: the engine's, or why it ended without an answer."""


class EngineLost(Exception):
    """The engine is gone; its requests may go to another."""


class PageSilent(EngineLost):
    """The engine dropped the request after too long without a sign of the page."""


class NoEngine(RamoleError):
    """No engine is live."""

    def __init__(self, seconds: float):
        super().__init__(
            f"No engine has answered for {seconds:.0f} seconds; they start, or were stopped: try "
            "again in a moment."
        )


class Fleet(Protocol):
    """Live engines; thread-safe."""

    def keys(self) -> Sequence[str]:
        """Keys of the live engines."""
        ...

    def call(self, key: str, name: str, *args: object) -> object:
        """Call the engine's method of that name; raises what it raises, EngineLost where the engine
        is gone."""
        ...

    def notify(self, key: str, name: str, *args: object) -> None:
        """Call without waiting; errors are dropped."""
        ...

    def answer(
        self, key: str, job: Job, receive: Callable[[Sequence[Item]], None]
    ) -> Callable[[], None]:
        """Begin a request; `receive` gets its results in order, in another thread: last a
        Generation or an exception. Returns a function that cancels it: the Generation then has what
        was made."""
        ...

    def close(self) -> None:
        """Release the connections to the engines."""
        ...
