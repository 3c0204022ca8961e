"""How often a stream is drawn: the more streams there are, the rarer each one's pictures.

A picture costs the page's process about 1 ms of a core that the model needs too, so all streams
together get about as many pictures a second as one alone.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

STREAM_SECONDS = 0.05
"""Seconds between two pictures of a stream, for each stream that is on its way."""
MAX_PAUSE_SECONDS = 1.5
"""Seconds between two pictures at most, so that an answer is always seen to grow."""


class Pace:
    """Counts the streams on their way; every thread may use it."""

    def __init__(self):
        self._streams = 0
        self._lock = threading.Lock()

    @contextmanager
    def stream(self) -> Iterator[Callable[[], float]]:
        """One more stream inside the block; yields what tells its pause, in seconds, as of now."""
        with self._lock:
            self._streams += 1
        try:
            yield self.pause
        finally:
            with self._lock:
                self._streams -= 1

    def pause(self) -> float:
        """Seconds that a stream rests between two pictures."""
        return min(STREAM_SECONDS * max(self._streams, 1), MAX_PAUSE_SECONDS)


PACE = Pace()
"""Of this process: page and API share the core."""
