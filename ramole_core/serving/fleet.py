"""The page's interface to live engines, each addressed by a key.

Its transport is Ray (`ray_fleet.py`), or threads or processes in tests.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from ramole_core.errors import RamoleError
from ramole_core.serving.wire import EngineMessage, Job

Item = EngineMessage | Exception
"""A message about a request: the engine's, or the error that ended it."""


class EngineLost(Exception):
    """The engine is gone; its requests may go to another."""


class PageLost(EngineLost):
    """The engine dropped the request after its page's lease ended."""


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
