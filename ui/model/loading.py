"""Load the base model in the background, with progress in words."""

import logging
import threading
import time
from collections.abc import Iterator
from typing import TypedDict

from ramole_core import Ramole, RamoleError, settle

from ..parts.per_system import one_of
from .spaces import ELSEWHERE

log = logging.getLogger(__name__)
POLL_SECONDS = 0.4
"""Interval at which a loading model is polled."""
FAILED = "The model could not be loaded; the server's log says why."


class Status(TypedDict):
    ready: bool
    stage: str
    """Current stage, in words."""
    fraction: float
    """Fraction done, 0 to 1."""
    error: str | None
    """One sentence, where loading failed."""


class Loading:
    """One load of the model in a thread of its own; every field may be read at any time."""

    def __init__(self, ramole: Ramole):
        self.stage, self.fraction = "waiting to start", 0.0
        self.error: str | None = None
        """As in `Status`; the next `start` tries again."""
        self.ended = threading.Event()
        """Set when loading is over, well or not."""
        self._ramole = ramole
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    @property
    def ready(self) -> bool:
        """Whether the model can answer."""
        return self._ramole.loaded

    def start(self) -> None:
        """Begin in the background; does nothing while it runs or once the model is there."""
        with self._lock:
            if self.ready or (self._thread is not None and not self.ended.is_set()):
                return
            self.error = None
            self.ended.clear()
            self._thread = threading.Thread(target=self._run, name="load-model", daemon=True)
            self._thread.start()

    def status(self) -> Status:
        fraction = 1.0 if self.ready else round(self.fraction, 3)
        return {
            "ready": self.ready,
            "stage": "ready" if self.ready else self.stage,
            "fraction": fraction,
            "error": self.error,
        }

    def _tell(self, stage: str, fraction: float) -> None:
        self.stage, self.fraction = stage, fraction

    def _run(self) -> None:
        began = time.perf_counter()
        try:
            self._ramole.load(self._tell)
            if not ELSEWHERE and hasattr(self._ramole, "start"):
                self._ramole.start()  # on ZeroGPU each call runs in a process of its own
            settle()
            log.info("The model is ready after %.1f s.", time.perf_counter() - began)
        except RamoleError as error:
            self.error = str(error)
            log.error("%s", error)
        except Exception as error:
            self.error = FAILED
            log.exception("The model could not be loaded: %s", error)  # no visitor's word is in it
        finally:
            self.ended.set()


def loaded(
    ramole: Ramole, cancelled: threading.Event, *, pause: float = POLL_SECONDS
) -> Iterator[str]:
    """The stage in words, every `pause` seconds until the model is loaded or the caller cancels.

    Starts the load where that has not happened. Raises RamoleError where it fails.
    """
    loading = loading_of(ramole)
    while not loading.ready and not cancelled.is_set():
        loading.start()
        yield f"The model is loading ({loading.stage})"
        loading.ended.wait(pause)
        if loading.error:
            raise RamoleError(loading.error)


def loading_of(ramole: Ramole) -> Loading:
    """The one Loading of this system."""
    return one_of(Loading, ramole)
