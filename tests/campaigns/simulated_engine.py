"""An engine that sleeps in the place of a forward: for the shape of a curve, not for its height.

A step of the batch takes STEP seconds whoever is in it, as on a GPU that has room; the page, the
wire and Ray are the real ones.
"""

import os
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from ramole_core.request import Generation, Step
from ramole_core.serving.fleet import Item
from ramole_core.serving.wire import Job, News
from ramole_core.settings import Settings

STEP = 0.05
Receive = Callable[[Sequence[Item]], None]


class SimulatedEngine:
    """As many requests at the same time as a batch has rows."""

    def __init__(self, settings: Settings):
        self._rows = threading.Semaphore(settings.max_batch)
        self._answers = 0

    def answer(
        self, job: Job, deliver: Callable[[News], None], *, cancelled: Callable[[], bool]
    ) -> None:
        """Sleeps for each token, and tells it."""
        count = job.request.max_new_tokens
        with self._rows:
            for _ in range(count):
                time.sleep(STEP - time.monotonic() % STEP)  # all rows step together
                if cancelled():
                    break
                deliver(Step(token=0, text="-", weights=None))
        self._answers += 1
        deliver(Generation("-" * count, [], [], None, "length", 2, count, 0.0, 0.0))

    def stats(self) -> Mapping[str, int | float]:
        """How many it has answered."""
        return {"finished": self._answers}

    def process(self) -> int:
        """Its process."""
        return os.getpid()


class SleepingFleet:
    """`Fleet` of engines that sleep, a thread each in this process: what is measured is the page's
    half alone, with no wire between."""

    def __init__(self, engines: int, *, rows: int):
        self._names = [f"engine-{n}" for n in range(engines)]
        self._waiting: dict[str, queue.SimpleQueue[tuple[Job, Receive]]] = {
            name: queue.SimpleQueue() for name in self._names
        }
        self._ending = threading.Event()
        for name in self._names:
            work = threading.Thread(target=self._run, args=[name, rows], daemon=True)
            work.start()

    def keys(self) -> Sequence[str]:
        return self._names

    def call(self, key: str, name: str, *args: object) -> object:
        raise NotImplementedError(name)

    def notify(self, key: str, name: str, *args: object) -> None:
        """They need no word of the page."""

    def answer(self, key: str, job: Job, receive: Receive) -> Callable[[], None]:
        self._waiting[key].put((job, receive))
        return lambda: None

    def close(self) -> None:
        self._ending.set()

    def _run(self, name: str, rows: int) -> None:
        running: list[tuple[Job, Receive, int]] = []
        while not self._ending.is_set():
            while len(running) < rows and not self._waiting[name].empty():
                running.append((*self._waiting[name].get(), 0))
            time.sleep(STEP)
            going = []
            for job, receive, made in running:
                count = job.request.max_new_tokens
                receive([Step(token=0, text="-", weights=None)])
                if made + 1 < count:
                    going.append((job, receive, made + 1))
                else:
                    receive([Generation("-" * count, [], [], None, "length", 2, count, 0.0, 0.0)])
            running = going
