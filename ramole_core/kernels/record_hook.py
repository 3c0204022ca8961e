"""The hook by which a forward is recorded for replay (`engine.capture`)."""

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from ramole_core.kernels.team import Kernel


class Recorder(Protocol):
    """The interface of a recorder."""

    def call(self, kernel: "Kernel", words: np.ndarray) -> None:
        """Record a kernel's call with these words, tiles included."""

    def keep(self, *things: object) -> None:
        """Keep alive what a kernel's words point into."""

    def again(self, work: Callable[[], None]) -> None:
        """Record a function to call at this place in every replay."""

    def aside(self) -> AbstractContextManager[None]:
        """Pause the recording inside the block, whose work `again` does."""
        ...


class _Watching(threading.local):
    one: Recorder | None = None


WATCHING = _Watching()
"""Of this thread."""
