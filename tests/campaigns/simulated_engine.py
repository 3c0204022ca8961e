"""An engine that sleeps in the place of a forward: for the shape of a curve, not for its height.

A step of the batch takes STEP seconds whoever is in it, as on a GPU that has room; the page, the
wire and Ray are the real ones.
"""

import os
import threading
import time
from collections.abc import Callable, Mapping

from ramole_core.request import Generation, Step
from ramole_core.serving.wire import Job, Told
from ramole_core.settings import Settings

STEP = 0.05


class SimulatedEngine:
    """As many requests at the same time as a batch has rows."""

    def __init__(self, settings: Settings):
        self._rows = threading.Semaphore(settings.max_batch)
        self._answers = 0

    def answer(
        self, job: Job, tell: Callable[[Told], None], *, cancelled: Callable[[], bool]
    ) -> None:
        """Sleeps for each token, and tells it."""
        count = job.request.max_new_tokens
        with self._rows:
            for _ in range(count):
                time.sleep(STEP - time.monotonic() % STEP)  # all rows step together
                if cancelled():
                    break
                tell(Step(token=0, text="-", weights=None))
        self._answers += 1
        tell(Generation("-" * count, [], [], None, "length", 2, count, 0.0, 0.0))

    def stats(self) -> Mapping[str, int | float]:
        """How many it has answered."""
        return {"finished": self._answers}

    def process(self) -> int:
        """Its process."""
        return os.getpid()
