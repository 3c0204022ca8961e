"""Pack adapters without examples ahead of requests.

Any prompt may examine eight adapters that were never used, and packing takes about 50 ms each, for
which that prompt would wait. A thread packs them while nothing runs.
"""

import logging
import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

from ramole_core.pool import AdapterCard

if TYPE_CHECKING:
    from ramole_core.composition import Candidate
    from ramole_core.engine.backend import Backend

log = logging.getLogger(__name__)

POLL_SECONDS = 0.02
"""Interval at which it is polled whether anything runs."""
MAX_WAIT_SECONDS = 10.0
"""Seconds that a removal waits for the packing of its adapter."""
MAX_PACKED_NUMBERS = 2**26
"""Numbers of the adapters that are packed during a start: at most three seconds of a core."""
MIN_FREE_BYTES = 2 * 2**30
"""Bytes of the disk that packing ahead leaves free."""


class Prepack:
    """A listener of the pool with a thread, from `start` until `close`, that packs adapters
    ahead."""

    def __init__(self, candidate_of: "Callable[[AdapterCard], Candidate]", *, folder: Path):
        """`candidate_of` makes a card what the engine reads; `folder` is on the disk that is
        written to."""
        self._candidate_of, self._folder = candidate_of, folder
        self._waiting: OrderedDict[str, AdapterCard] = OrderedDict()
        self._news = threading.Condition()
        self._ending = False
        self._now = ""
        """Checksum of the content that is packed now."""
        self._thread: threading.Thread | None = None

    def start(self, engines: "Backend", cards: Iterable[AdapterCard]) -> None:
        """Pack these, and those that are added from now on, for `engines`."""
        for card in cards:
            self.added(card)
        with self._news:
            if not self._ending:
                self._thread = threading.Thread(
                    target=self._run, args=[engines], name="packing", daemon=True
                )
                self._thread.start()

    def added(self, card: AdapterCard) -> None:
        """Queue a new adapter."""
        if card.blind:
            with self._news:
                self._waiting[card.key] = card
                self._news.notify_all()

    def removed(self, card: AdapterCard) -> None:
        """Drop a removed adapter; returns when its packing is over."""
        with self._news:
            self._waiting.pop(card.key, None)
            self._news.wait_for(lambda: self._now != card.content, MAX_WAIT_SECONDS)

    def wait(self, seconds: float) -> bool:
        """Wait until the queue is empty; False where it takes longer than that."""
        with self._news:
            return self._news.wait_for(lambda: not (self._waiting or self._now), seconds)

    def close(self) -> None:
        """End the thread, after what it packs now."""
        with self._news:
            self._ending = True
            self._news.notify_all()
        if self._thread is not None:
            self._thread.join()

    def _run(self, engines: "Backend") -> None:
        while True:
            with self._news:
                self._now = ""
                self._news.notify_all()
                self._news.wait_for(lambda: self._waiting or self._ending)
            while not engines.idle and not self._ending:
                time.sleep(POLL_SECONDS)
            with self._news:
                if self._ending:
                    return
                if not self._waiting:  # it was removed meanwhile
                    continue
                _, card = self._waiting.popitem(last=False)
                self._now = card.content
            self.pack(engines, card)

    def pack_first(
        self, engines: "Backend", cards: Iterable[AdapterCard], tell: Callable[[str, float], None]
    ) -> None:
        """Pack the first of these before a start has ended, as many as that may take."""
        cards = list(cards)
        sums = accumulate(card.parameters for card in cards)
        few = [card for card, size in zip(cards, sums, strict=True) if size <= MAX_PACKED_NUMBERS]
        for n, card in enumerate(few):
            tell(f"packing the adapters, {n} of {len(few)}", 0.95 + 0.04 * n / len(few))
            self.pack(engines, card)

    def pack(self, engines: "Backend", card: AdapterCard) -> None:
        """Pack one adapter now, where it is not packed yet and the disk has room; an error is
        raised again when a request needs it."""
        try:
            if shutil.disk_usage(self._folder).free >= MIN_FREE_BYTES:
                engines.pack(self._candidate_of(card))
        except Exception:  # such as an adapter that was removed meanwhile
            log.debug("%s was not packed ahead", card.name, exc_info=True)
