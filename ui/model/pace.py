"""The pace of drawing streams: the more streams, the fewer pictures of each.

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
    """The count of open streams; thread-safe."""

    def __init__(self):
        self._streams = 0
        self._lock = threading.Lock()

    @contextmanager
    def stream(self) -> Iterator[Callable[[], float]]:
        """Count a stream inside the block; yields a function for its current pause in seconds."""
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
