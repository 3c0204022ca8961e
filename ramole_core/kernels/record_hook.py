"""Who is told of what a forward does, while one is written down to run again (`engine.capture`)."""

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from ramole_core.kernels.team import Kernel


class Recorder(Protocol):
    """Writes down what runs."""

    def call(self, kernel: "Kernel", words: np.ndarray) -> None:
        """A kernel is called with these words, their tiles included."""

    def keep(self, *things: object) -> None:
        """A kernel's words point into these: they have to stay alive."""

    def again(self, work: Callable[[], None]) -> None:
        """This has to be called whenever the forward runs again, at this place."""

    def aside(self) -> AbstractContextManager[None]:
        """What happens inside the block is not written down: `again` does it."""
        ...


class _Watching(threading.local):
    one: Recorder | None = None


WATCHING = _Watching()
"""Of this thread."""
