"""How long something keeps a processor, whatever else the machine and this process do meanwhile."""

import gc
import time


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
