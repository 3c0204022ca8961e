"""Pages of keys and values: their memory, the tree that finds them, and who holds them.

For each layer one tensor of keys and one of values, PAGE tokens a page. The keys of a page lie
transposed, so that a vector holds the same place of many keys, and the values in whole vectors.
Numbers of pages stay when the memory grows.

A token is its id and how it was mixed, three int64 (`KvCache.content`). A page below another
continues it; only a full page has others below it, and no two full pages there are equal. Pages
below one page are sorted by their content, so the one with the most tokens in common with any
content stands beside the place where that would be.
"""

from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from ramole_core.kernels.vectors import padded

PAGE = 64
"""Tokens of a page."""
INITIAL_PAGES = 8
"""Pages that are allocated first; their number doubles whenever they are used up."""


class PageMemory:
    """At most `most` pages, the same in every layer."""

    def __init__(self, most: int):
        self.most = most
        self.version = 0
        """Incremented whenever a layer's pages move."""
        self.places = 0
        """Number of pages; a layer's memory is allocated with its first tokens."""
        self.keys: dict[int, Tensor] = {}
        """By layer, [places, h, d, PAGE]."""
        self.values: dict[int, Tensor] = {}
        """By layer, [places, h, PAGE, padded(dv)]."""

    @property
    def nbytes(self) -> int:
        return sum(t.nbytes for made in (self.keys, self.values) for t in made.values())

    def layer(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """The pages of a layer, made for keys [1, h, N, d] and values [1, h, N, dv] like these."""
        found = self.keys.get(layer)
        if found is None:
            h, d, wide = keys.shape[1], keys.shape[3], padded(values.shape[3])
            found = _zeros(keys, (self.places, h, d, PAGE))
            self.values[layer] = _zeros(values, (self.places, h, PAGE, wide))
            self.keys[layer] = found
            self.version += 1
        return found, self.values[layer]

    def grow(self) -> range:
        """Allocate more pages and return their numbers; none at the limit. Where there is no memory
        now, all stays as it was, and a later call goes on with what was made."""
        before, places = self.places, min(self.most, max(INITIAL_PAGES, 2 * self.places))
        for made in (self.keys, self.values):
            for layer, old in made.items():
                if len(old) < places:
                    new = _zeros(old, (places, *old.shape[1:]))
                    new[:before] = old[:before]
                    made[layer] = new
                    self.version += 1
        self.places = places
        return range(before, self.places)

    def copy(self, source: int, to: int, *, start: int, end: int) -> None:
        """Copy the tokens at [start, end) of a page to the same places of another."""
        for keys in self.keys.values():
            keys[to, :, :, start:end] = keys[source, :, :, start:end]
        for values in self.values.values():
            values[to, :, start:end] = values[source, :, start:end]


def pages_of(tokens: int) -> int:
    """Number of pages for so many tokens."""
    return -(-tokens // PAGE)


def _zeros(like: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Zeros that can be written outside of inference mode too."""
    with torch.inference_mode(False):
        return torch.zeros(shape, dtype=like.dtype, device=like.device)


@dataclass(eq=False, slots=True)
class Page:
    """The tokens of one page, its parent and children."""

    number: int
    above: "Page | None" = None
    """The page before it; None: it holds no token yet, or it is the root."""
    count: int = 0
    """Tokens in it."""
    content: np.ndarray = field(default_factory=lambda: np.zeros((PAGE, 3), np.int64))
    below: list[tuple[bytes, int, "Page"]] = field(default_factory=list)
    """(content, number, page) of the pages that continue it, sorted."""
    key: bytes = b""
    """Its content, as its parent's `below` has it."""
    refs: int = 0
    """Requests that hold it."""
    traced: np.ndarray = field(default_factory=lambda: np.zeros(PAGE, np.bool_))
    """Whose trace rows are here, or need none."""
    gates: list[Tensor | None] = field(default_factory=lambda: [None] * PAGE)
    """Trace row [2, layer, module, k] of each traced token; None: it needs none."""

    @property
    def trace_bytes(self) -> int:
        return sum(row.nbytes for row in self.gates if row is not None)

    def forget_traces(self) -> None:
        """Drop the trace rows; a request with a trace reads their tokens again."""
        self.traced[[row is not None for row in self.gates]] = False
        self.gates = [None] * PAGE

    def common(self, content: Int64[np.ndarray, "n 3"]) -> int:
        n = min(self.count, len(content))
        same = (self.content[:n] == content[:n]).all(1)
        return n if same.all() else int(same.argmin())

    def take_traces(self, other: "Page", n: int) -> None:
        """Copy the traces of `other` for the first n tokens, which are equal."""
        for at in np.flatnonzero(other.traced[:n] & ~self.traced[:n]):
            self.gates[at] = other.gates[at]
        self.traced[:n] |= other.traced[:n]


class PrefixTree:
    """The tree of all pages that hold tokens."""

    def __init__(self):
        self.root = Page(-1)

    def find(
        self,
        above: Page,
        content: Int64[np.ndarray, "n 3"],
        *,
        traced: bool = False,
        besides: Page | None = None,
    ) -> tuple[Page | None, int]:
        """The page below `above` that begins with the most tokens of `content`, and how many.

        With `traced` only tokens whose trace is known count; `besides` does not count.
        """
        best, most = None, 0
        place = bisect_left(above.below, (content.tobytes(),))
        for side in (range(place, len(above.below)), range(place - 1, -1, -1)):
            for at in side:
                page = above.below[at][2]
                n = page.common(content)
                if n <= most:
                    break  # further away they have no more in common
                if traced and not page.traced[:n].all():
                    n = int(page.traced[:n].argmin())
                if page is not besides and n > most:
                    best, most = page, n
        return best, most

    def add(
        self,
        page: Page,
        above: Page,
        content: Int64[np.ndarray, "n 3"],
        *,
        gates: Sequence[Tensor | None],
        traced: Sequence[bool] | np.ndarray,
    ) -> Page | None:
        """Append tokens to a page; returns the equal full page that takes its place in the tree, or
        None."""
        start, end = page.count, page.count + len(content)
        if start:
            self.remove(page)
        page.content[start:end], page.count = content, end
        page.traced[start:end], page.gates[start:end] = traced, gates
        if end == PAGE:
            twin, n = self.find(above, page.content)
            if twin is not None and n == PAGE:
                twin.take_traces(page, PAGE)
                return twin
        self._insert(page, above)
        return None

    def cut(self, page: Page, n: int) -> None:
        above = page.above
        assert above is not None and not page.below
        self.remove(page)
        page.count = n
        page.traced[n:] = False
        page.gates[n:] = [None] * (PAGE - n)
        self._insert(page, above)

    def remove(self, page: Page) -> None:
        assert page.above is not None and not page.below
        del page.above.below[bisect_left(page.above.below, (page.key, page.number))]
        page.above = None

    def _insert(self, page: Page, above: Page) -> None:
        page.above, page.key = above, page.content[: page.count].tobytes()
        insort(above.below, (page.key, page.number, page))


class PagePool:
    """The state of each page: held, cached for its prefix, or free; unheld ones are evicted when
    room is needed."""

    def __init__(self, memory: PageMemory, tree: PrefixTree, *, trace_limit: int):
        """`trace_limit`: most bytes of the trace rows of unheld pages."""
        self._memory, self._tree, self._trace_limit = memory, tree, trace_limit
        self._traces: dict[int, int] = {}
        """Bytes of the trace rows of each unheld page, least recently used first."""
        self.trace_bytes = 0
        """Their sum."""
        self._free: list[int] = []
        self._idle: OrderedDict[int, Page] = OrderedDict()
        """Unheld pages in the tree by number, least recently used first: a page comes before the
        one that it continues, since a sequence releases its last page first."""
        self.held = 0
        """Pages that are in use."""

    @property
    def cached(self) -> int:
        return len(self._idle)

    def hold(self, page: Page) -> None:
        if not page.refs:
            self.held += 1
            self._idle.pop(page.number, None)
            self.trace_bytes -= self._traces.pop(page.number, 0)
        page.refs += 1

    def release(self, page: Page) -> None:
        """Release a page; one that is not in the tree becomes free."""
        page.refs -= 1
        if page.refs:
            return
        self.held -= 1
        if page.above is None:
            self._free.append(page.number)
        else:
            self._idle[page.number] = page
            self.trace_bytes += page.trace_bytes
            self._traces[page.number] = page.trace_bytes
            while self.trace_bytes > self._trace_limit:
                number = next(iter(self._traces))
                self.trace_bytes -= self._traces.pop(number)
                self._idle[number].forget_traces()

    def new(self) -> Page:
        """Take an empty page, from memory that is free, new, or evicted."""
        assert self.has_room(), "a sequence needs more pages than were set aside"
        page = Page(self._free.pop())
        self.hold(page)
        return page

    def has_room(self) -> bool:
        """Whether there is room for one more page; makes it."""
        if not self._free:
            self._free += reversed(self._memory.grow())
        if not self._free and self._idle:
            self._evict()
        return bool(self._free)

    def forget(self) -> None:
        while self._idle:
            self._evict()

    def _evict(self) -> None:
        number, page = self._idle.popitem(last=False)
        self.trace_bytes -= self._traces.pop(number, 0)
        self._tree.remove(page)
        self._free.append(number)


class KvSequence:
    """One request's pages in order, and the number of tokens in them."""

    def __init__(self, length: int, *, long: bool = False):
        self.most = pages_of(length)
        """Most pages that it may need."""
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
