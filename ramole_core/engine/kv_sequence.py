"""The place of one request in the cache of keys and values."""

import numpy as np
from torch import Tensor

from ramole_core.engine.pages import PAGE, pages_of
from ramole_core.engine.prefix import Page


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
