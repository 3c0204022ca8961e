"""A thread that steps an engine while there is anything to do: what a server runs."""

import logging
import threading

from ramole_core.engine.engine import Engine

log = logging.getLogger(__name__)


class EngineThread:
    """Steps an engine while there is anything to do; `close()` ends it after the running step."""

    def __init__(self, engine: Engine):
        self._engine = engine
        self._wake = threading.Condition()
        self._ending = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def wake(self) -> None:
        """There is something to do."""
        with self._wake:
            self._wake.notify()

    def close(self) -> None:
        with self._wake:
            self._ending = True
            self._wake.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._wake:
                while self._engine.scheduler.idle and not self._ending:
                    self._wake.wait()
            if self._ending:
                return
            try:
                self._engine.step()
            except Exception:  # whoever waited has been told; the server goes on
                log.exception("A step of the batch failed, and every request with it.")
