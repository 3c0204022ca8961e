"""The server's thread, which steps an engine while there is work."""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ramole_core.engine.engine import Engine

log = logging.getLogger(__name__)

GATHER_SECONDS = 0.15
"""Seconds at most that a request waits, where nothing runs, for others that are being prepared (a
batching delay): to read all of them at once takes half as long, and who is prepared has both cores
meanwhile."""


class EngineThread:
    """Step an engine while there is work, from `start()` on; `close()` ends it after the running
    step."""

    def __init__(self, engine: "Engine"):
        self._engine = engine
        self._wake = threading.Condition()
        self._ending = False
        self._coming: dict[int, float] = {}
        """When each thread began to prepare what it will submit."""
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Begin. Callers that submit must have this thread before, to wake it."""
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.ident is None or self._thread.is_alive()

    @contextmanager
    def expecting(self) -> Iterator[None]:
        """Announce a request that the caller prepares inside; it ends with `wake` in that thread,
        or an error inside."""
        with self._wake:
            self._coming[threading.get_ident()] = time.monotonic()
        try:
            yield
        except BaseException:
            self.wake()
            raise

    @property
    def expects(self) -> bool:
        with self._wake:
            now = time.monotonic()
            return any(now < since + GATHER_SECONDS for since in self._coming.values())

    def wake(self) -> None:
        with self._wake:
            self._coming.pop(threading.get_ident(), None)
            self._wake.notify()

    def close(self) -> None:
        with self._wake:
            self._ending = True
            self._wake.notify()
        self._thread.join()

    def _gather(self) -> None:
        """Wait a moment for announced requests, unless rows are waiting for their next token."""
        began = time.monotonic()
        while not self._ending and self._engine.scheduler.running == 0:
            now = time.monotonic()
            ends = [min(began, since) + GATHER_SECONDS for since in self._coming.values()]
            if max(ends, default=now) <= now:
                break
            self._wake.wait(max(ends) - now)
        self._coming = {
            k: t for k, t in self._coming.items() if time.monotonic() < t + GATHER_SECONDS
        }

    def _run(self) -> None:
        while True:
            with self._wake:
                while self._engine.scheduler.idle and not self._ending:
                    self._wake.wait()
                self._gather()
            if self._ending:
                return
            try:
                self._engine.step()
            except Exception:  # every request got its error; the server goes on
                log.exception("A step of the batch failed, and every request with it.")
