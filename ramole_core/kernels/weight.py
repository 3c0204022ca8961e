"""A linear layer's weight, its input, and the adapters' update to its output.

Inputs in bfloat16 go one of three ways (`ways`), float32 is summed in float32 vectors (`product`).
"""

import threading
import time
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ramole_core.kernels import outputs as words_of
from ramole_core.kernels.call_args import WORDS
from ramole_core.kernels.matrix_input import turned
from ramole_core.kernels.matrix_product import HOW_LAID, MULTIPLY_IN_UNIT, span_of as unit_span
from ramole_core.kernels.outputs import BYTES, CODES, FLOATS, GRID, HALVES
from ramole_core.kernels.product import MULTIPLY, MULTIPLY_HALVES, span_of, takes
from ramole_core.kernels.vectors import paired
from ramole_core.kernels.ways import DOTS, TILES, VECTORS, pick_way
from ramole_core.kernels.widen import widened

KINDS = {
    torch.float32: FLOATS,
    torch.bfloat16: HALVES,
    torch.uint8: CODES,
    torch.int8: BYTES,
}


class Input:
    """x [..., i] of float32 or bfloat16; each form that a kernel reads is made once."""

    def __init__(self, x: Tensor):
        self.shape = x.shape
        self.x = x.reshape(-1, x.shape[-1]).contiguous()

    @cached_property
    def wide(self) -> Tensor:
        """float32 [N, paired(i)] in the order of `dots`."""
        return widened(self.x)

    @cached_property
    def turned(self) -> Tensor:
        """Right tiles of the matrix unit."""
        return turned(self.x, ordered=False)

    @cached_property
    def ordered(self) -> Tensor:
        """Right tiles in the order in which 4-bit codes are laid out."""
        return turned(self.x, ordered=True)


@dataclass(frozen=True)
class UnitRows:
    """The pages of each token's units in one forward, for all layers."""

    pages: np.ndarray
    """[rows, R] int32: of each row's units, places in B."""
    counts: np.ndarray
    """[rows, 2] int32: how many, first."""
    row_of: np.ndarray
    """[N] int32: the row of each token."""

    @cached_property
    def words(self) -> tuple[int, int, int, int]:
        """Their addresses, as words of a product's call."""
        pages = self.pages
        return pages.ctypes.data, pages.shape[1], self.counts.ctypes.data, self.row_of.ctypes.data


@dataclass(frozen=True)
class Update:
    """The adapters' update to one layer's output."""

    units: np.ndarray
    """[N, R] float32, weighted."""
    rows: UnitRows
    B: np.ndarray
    """[pages, o], float32 or bfloat16's bits."""
    split: int = 0
    """The address of the units as the matrix unit reads them; 0: they were not split for it."""

    def write_to(self, words: np.ndarray) -> None:
        """Write it into the words of a product's call."""
        units, B = self.units, self.B
        half = B.dtype == np.uint16
        words[words_of.UNITS : words_of.PAGE_COUNT + 1] = (
            *(units.ctypes.data, units.shape[1], *self.rows.words),
            *(B.ctypes.data, half, B.shape[0]),
        )
        words[words_of.SPLIT] = self.split

    def added_to(self, y: Tensor) -> Tensor:
        """y [..., o] with the update added, by PyTorch: for a layer without a kernel."""
        flat = y.reshape(-1, y.shape[-1]).float()
        B = torch.from_numpy(self.B)
        B = (B.view(torch.bfloat16) if self.B.dtype == np.uint16 else B).float()
        for n, row in enumerate(self.rows.row_of):
            R = self.rows.counts[row, 0]
            flat[n] += torch.from_numpy(self.units[n, :R]) @ B[self.rows.pages[row, :R]]
        return flat.to(y.dtype).view(y.shape)


class Weight:
    """A linear layer's weight [o, i] and its product."""

    def __init__(
        self,
        weight: Tensor,
        size: tuple[int, int],
        *,
        scales: Tensor | None = None,
        bias: Tensor | None = None,
    ):
        """`size` is (o, i); `weight` holds it in rows, or int8 numbers of them with `scales` [o],
        or NF4's codes with `scales` [o, i / BLOCK], or int4's codes with `scales` [o, i / GROUP, 2]
        in bfloat16, steps and least numbers."""
        self.o, self.i = size
        self._held = weight, scales, None if bias is None else bias.float().contiguous()
        grid = scales is not None and scales.dtype == torch.bfloat16
        self._kind = kind = GRID if grid else KINDS[weight.dtype]
        words = self._words = np.zeros(WORDS, np.int64)
        words[words_of.O], words[words_of.I], words[words_of.X_ROW] = self.o, self.i, paired(self.i)
        words[words_of.KIND], words[words_of.W] = kind, weight.data_ptr()
        words[words_of.LAYOUTS] = HOW_LAID.ctypes.data
        if scales is not None:
            words[words_of.SCALES] = scales.data_ptr()
        if self._held[2] is not None:
            words[words_of.BIAS] = self._held[2].data_ptr()

    def multiply(
        self, given: Input, update: Update | None = None, *, way: str | None = None
    ) -> Tensor:
        """y [..., o] in the input's dtype; raises ValueError for an input of another width. `way`:
        not this CPU's."""
        if given.x.shape[1] != self.i:  # the kernels read memory by this number
            raise ValueError(f"x has {given.x.shape[1]} numbers a row, {self.i} were expected")
        dtype, n = given.x.dtype, len(given.x)
        y = torch.empty(n, self.o, dtype=dtype)
        if not n:
            return y.view(*given.shape[:-1], self.o)
        words, half = self._words, dtype == torch.bfloat16
        rounds = half and self._kind in (HALVES, CODES, GRID)
        way = way or way_here() if rounds else VECTORS
        in_tiles, in_dots = way == TILES, way == DOTS and takes(self.i)
        if in_tiles:
            x = given.turned if self._kind == HALVES else given.ordered
        else:
            x = given.x if in_dots else given.wide
        words[words_of.M : words_of.Y_HALF + 1] = n, x.data_ptr(), y.data_ptr(), half
        words[words_of.UNITS] = 0
        if update is not None:
            update.write_to(words)
        span = words[words_of.SPAN] = (unit_span if in_tiles else span_of)(n, self.o)
        kernel = MULTIPLY_IN_UNIT if in_tiles else MULTIPLY_HALVES if in_dots else MULTIPLY
        kernel.run(words, -(-self.o // span))
        return y.view(*given.shape[:-1], self.o)


_WAY: list[str] = []
_PICKING = threading.Lock()


def way_here() -> str:
    """The way of this CPU's products of bfloat16 inputs; of two first callers one measures."""
    if not _WAY:
        with _PICKING:
            if not _WAY:
                _WAY.append(pick_way(_seconds_of))
    return _WAY[0]


def _seconds_of(way: str) -> float:
    """Least time of a product of many rows in this way."""
    o, i = 512, 512
    weight = Weight(torch.ones(o, i, dtype=torch.bfloat16), (o, i))
    rows, seconds = torch.ones(96, i, dtype=torch.bfloat16), []
    for _ in range(12):
        began = time.perf_counter()
        weight.multiply(Input(rows), way=way)
        seconds.append(time.perf_counter() - began)
    return min(seconds)
