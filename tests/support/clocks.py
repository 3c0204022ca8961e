"""A clock that a test sets; and how much work something is, in lines of Python or in seconds.

Lines are the same number on every machine, whatever else runs there. Seconds are for what works
inside of one call of C, such as a regular expression, and only where too slow is slower by far.
"""

import gc
import sys
import time
from types import FrameType


class Clock:
    """Stands still: `now` is what it tells."""

    def __init__(self, now: float = 1000.0):
        self.now = now

    def __call__(self) -> float:
        return self.now


class Steps:
    """`with Steps() as steps: ...`, then `steps.count` lines of Python that this thread ran."""

    count = 0

    def __enter__(self) -> "Steps":
        self._before = sys.gettrace()
        sys.settrace(self._trace)
        return self

    def _trace(self, frame: FrameType, event: str, arg: object):
        self.count += event == "line"
        return self._trace

    def __exit__(self, *_) -> None:
        sys.settrace(self._before)


class Spent:
    """`with Spent() as spent: ...`, then `spent.seconds` of this thread's processor time.

    Other threads, other processes and waiting do not count, nor does Python's own search for
    garbage, which takes half a second and more in a process that has imported everything."""

    seconds = 0.0

    def __enter__(self) -> "Spent":
        self._collects = gc.isenabled()
        gc.disable()
        self._began = time.thread_time()
        return self

    def __exit__(self, *_) -> None:
        self.seconds = time.thread_time() - self._began
        if self._collects:
            gc.enable()
