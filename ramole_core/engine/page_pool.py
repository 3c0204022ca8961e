"""The state of each page: held, cached for its prefix, or free."""

from heapq import heapify, heappop, heappush
from itertools import count

import numpy as np
from torch import Tensor

from ramole_core.engine.pages import PAGE, PageMemory, pages_of
from ramole_core.engine.prefix import Page, PrefixTree


class PagePool:
    """All pages of a memory; unheld ones are evicted when room is needed."""

    def __init__(self, memory: PageMemory, tree: PrefixTree):
        self._memory, self._tree = memory, tree
        self._free: list[int] = []
        self._idle = Idle()
        self.held = 0
        """Pages that are in use."""

    @property
    def cached(self) -> int:
        """Number of cached pages: unheld and findable."""
        return self._memory.places - len(self._free) - self.held

    def hold(self, page: Page) -> None:
        self.held += page.refs == 0
        page.refs += 1

    def release(self, page: Page) -> None:
        """Release a page; one that is not in the tree becomes free."""
        page.refs -= 1
        if page.refs:
            return
        self.held -= 1
        if page.above is None:
            self._free.append(page.number)
            return
        self._idle.use(page)
        if not page.below:
            self._idle.push(page)

    def new(self) -> Page:
        """Take an empty page, from memory that is free, new, or evicted."""
        assert self.any_left(), "a sequence needs more pages than were set aside"
        page = Page(self._free.pop())
        self.hold(page)
        return page

    def any_left(self) -> bool:
        """Whether there is room for one more page; makes it."""
        if not self._free:
            self._free += reversed(self._memory.grow())
        if not self._free and (page := self._idle.pop()) is not None:
            self._evict(page)
        return bool(self._free)

    def forget(self) -> None:
        """Free all unheld pages."""
        while (page := self._idle.pop()) is not None:
            self._evict(page)

    def _evict(self, page: Page) -> None:
        above = page.above
        assert above is not None
        self._tree.remove(page)
        self._free.append(page.number)
        if not (above.below or above.refs or above.above is None):
            self._idle.push(above)


class Idle:
    """Unheld leaf pages, least recently used first."""

    def __init__(self):
        self._heap: list[tuple[int, int, Page]] = []
        self._most = 256
        self._clock = count(1)

    def use(self, page: Page) -> None:
        """Mark the page as just used."""
        page.used = next(self._clock)

    def push(self, page: Page) -> None:
        """Add a candidate; it is checked when it is popped."""
        heappush(self._heap, (page.used, page.number, page))
        if len(self._heap) > self._most:
            kept = {entry[:2]: entry for entry in self._heap if _is_idle(*entry)}
            self._heap = list(kept.values())
            heapify(self._heap)
            self._most = max(256, 2 * len(kept))

    def pop(self) -> Page | None:
        """Remove and return the least recently used one."""
        while self._heap:
            entry = heappop(self._heap)
            if _is_idle(*entry):
                return entry[2]
        return None


def _is_idle(used: int, number: int, page: Page) -> bool:
    return page.above is not None and page.used == used and not (page.refs or page.below)


class KvSequence:
    """One request's pages in order, and the number of tokens in them."""

    def __init__(self, length: int, *, long: bool = False):
        self.most = pages_of(length)
        """Pages that it may need."""
        self.long = long
        """Whether it may become longer than the model was first trained for, where its rotary
        angles follow from that (longrope)."""
        self.length = 0
        """Tokens that are in it."""
        self.pages: list[Page] = []
        self._numbers = np.zeros(self.most, np.int32)

    @property
    def table(self) -> np.ndarray:
        """[pages] int32: the numbers of its pages, those included that are written next."""
        return self._numbers[: len(self.pages)]

    def gates(self, start: int, end: int) -> list[Tensor | None]:
        """The trace rows [2, layer, module, k] of the tokens at [start, end); None: needs none, or
        none is known."""
        return [self.pages[at // PAGE].gates[at % PAGE] for at in range(start, end)]

    def put(self, at: int, page: Page) -> None:
        """Set the page at a place, the next one or an earlier one."""
        self.pages[at:] = [page, *self.pages[at + 1 :]]
        self._numbers[at] = page.number
