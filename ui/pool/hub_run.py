"""A search of the Hub from the page: one at a time for everybody, and it can be stopped."""

import math
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from ramole_core import RamoleError

from ..parts.errors import UNEXPECTED, log

if TYPE_CHECKING:
    from ramole_core import Ramole

PAUSE = 600.0
"""Seconds from the end of a search to the next one from the page."""
AGAIN = 30.0
"""The same where it was stopped, or the Hub did not answer."""
POLL_SECONDS = 0.3
"""Seconds between two looks at how it stands."""
NOT_ALLOWED = (
    "This page may not use the Hub; whoever runs it can allow that with RAMOLE_HUB_ADAPTERS=true."
)


class HubRun:
    """The shared search of the Hub, with its progress for every visitor."""

    def __init__(self, ramole: "Ramole", clock: Callable[[], float] = time.monotonic):
        self._ramole, self._clock = ramole, clock
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._owner: str | None = None
        self._next = -math.inf
        self._said = ""

    def looks(self, owner: str | None) -> Iterator[tuple[str, str]]:
        """Yield (sentence, `busy`, `ready` or `wrong`) of a new search, or of the running one;
        raises RamoleError where none may begin."""
        thread = self._begin(owner)
        while thread.is_alive():
            stage = self._ramole.hub.stage
            yield (
                (f"{stage.words[:1].upper()}{stage.words[1:]}…" if stage else "Beginning…"),
                "busy",
            )
            thread.join(POLL_SECONDS)
        good = not self._said.startswith("!")
        yield self._said.lstrip("!"), "ready" if good else "wrong"

    def stop(self, owner: str | None) -> bool:
        """End the search, if this visitor began it; whether they did."""
        mine = self._running() and owner == self._owner
        if mine:
            self._ramole.hub.stop()
        return mine

    def _running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _begin(self, owner: str | None) -> threading.Thread:
        with self._lock:
            if not self._ramole.settings.hub_adapters:
                raise RamoleError(NOT_ALLOWED)
            if self._thread is not None and self._running():
                return self._thread
            left = self._next - self._clock()
            if left > 0:
                when = f"{left:.0f} seconds" if left < 90 else f"{left / 60:.0f} minutes"
                raise RamoleError(f"The Hub was asked a moment ago; ask again in {when}.")
            self._owner = owner
            self._thread = threading.Thread(target=self._search, name="hub-search", daemon=True)
            self._thread.start()
            return self._thread

    def _search(self) -> None:
        pause = AGAIN
        try:
            found = self._ramole.hub.search()
            self._said, pause = str(found), AGAIN if found.stopped else PAUSE
        except RamoleError as error:
            self._said = f"!{error}"
        except Exception:
            log.exception("The search of the Hub failed.")
            self._said = f"!{UNEXPECTED}"
        self._next = self._clock() + pause
