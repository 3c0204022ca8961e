"""y = x W^T + bias (+ the adapters' update), of a weight in NF4, bfloat16 or float32.

A tile is a few outputs: their weights are widened to float32 once and met by every row of x. Each
y[m, j] is one `dots`, so no other row and no size of tile changes its bits. The update is added
before y is rounded:

    y[m] += sum_c units[m, c] B[page c of m's row]
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ramole_core.kernels.compiled import kernel, put, wide
from ramole_core.kernels.dots import COLUMNS, dots
from ramole_core.kernels.outers import columns_of_floats, columns_of_halves, outers
from ramole_core.kernels.team import (
    TILES,
    WORDS,
    Kernel,
    bytes_at,
    floats,
    halves,
    ints,
    take,
    words_at,
)
from ramole_core.kernels.vectors import LANES, paired
from ramole_core.kernels.widen import BLOCK, widen_floats, widen_halves, widen_nf4

TILE = 16
"""Outputs of a tile."""
ROWS = 96
"""Rows of x that stay in the cache while they meet a tile."""
FEW = 4
"""Fewer rows than these read a page's columns where they lie; more of them meet a copy."""
FLOATS, HALVES, CODES = 0, 1, 2
"""What a weight is made of."""
(M, I, O, X, X_ROW, KIND, W, SCALES, BIAS, Y, Y_HALF) = range(2, 13)
(UNITS, UNITS_ROW, PAGES, PAGES_ROW, COUNTS, ROW_OF, B, B_HALF, PAGE_COUNT) = range(13, 22)
"""The words of a call, behind the two of every call."""


@kernel()
def _widen(words, first, count, weights):
    """weights[:count] = rows of W from `first` on, in float32."""
    i, kind = words[I], words[KIND]
    for j in range(count):
        row = first + j
        if kind == CODES:
            codes = bytes_at(words[W] + row * (i // 2), 1, i // 2)[0]
            scales = floats(words[SCALES] + 4 * row * (i // BLOCK), 1, i // BLOCK)[0]
            widen_nf4(codes, scales, i, weights[j])
        elif kind == HALVES:
            widen_halves(halves(words[W] + 2 * row * i, 1, i)[0], i, weights[j])
        else:
            widen_floats(floats(words[W] + 4 * row * i, 1, i)[0], i, weights[j])


@kernel()
def _add_updates(words, first, count, sums):
    """sums [m, TILE] += units times the columns of B from `first` on; rows of one request that
    stand together meet them together."""
    m, pages_row = words[M], words[PAGES_ROW]
    units, row_of = words[UNITS], ints(words[ROW_OF], 1, m)[0]
    columns = np.zeros((max(pages_row, 1), TILE), np.float32)
    start = 0
    while start < m:
        row, end = row_of[start], start + 1
        while end < m and row_of[end] == row:
            end += 1
        pages = ints(words[PAGES] + 4 * row * pages_row, 1, max(pages_row, 1))[0]
        R = ints(words[COUNTS] + 8 * row, 1, 2)[0, 0]
        out = sums.ctypes.data + 4 * start * TILE
        if R > 0 and end - start < FEW and count == TILE:
            for n in range(start, end):
                x = units + 4 * n * words[UNITS_ROW]
                for v in range(0, TILE, LANES):
                    if words[B_HALF]:
                        w = words[B] + 2 * (first + v)
                        columns_of_halves(x, pages.ctypes.data, R, w, words[O], out + 4 * v)
                    else:
                        w = words[B] + 4 * (first + v)
                        columns_of_floats(x, pages.ctypes.data, R, w, words[O], out + 4 * v)
                out += 4 * TILE
        elif R > 0:
            _columns(words, pages, R, first, count, columns)
            x = units + 4 * start * words[UNITS_ROW]
            w = columns.ctypes.data
            outers(x, words[UNITS_ROW], end - start, w, TILE, R, out, TILE, TILE)
        start = end


@kernel()
def _columns(words, pages, R, first, count, columns):
    """columns[:R, :count] = B at these pages, in float32."""
    if words[B_HALF]:
        bits = halves(words[B], words[PAGE_COUNT], words[O])
        for c in range(R):
            row, out = bits[pages[c]], columns[c]
            for j in range(count):
                out[j] = wide(row[first + j])
    else:
        numbers = floats(words[B], words[PAGE_COUNT], words[O])
        for c in range(R):
            row, out = numbers[pages[c]], columns[c]
            for j in range(count):
                out[j] = row[first + j]


@kernel()
def _write(words, first, count, sums):
    """y's columns from `first` on, rounded to what y holds."""
    m, o = words[M], words[O]
    if words[BIAS]:
        bias = floats(words[BIAS], 1, o)[0]
        for n in range(m):
            for j in range(count):
                sums[n, j] += bias[first + j]
    if words[UNITS]:
        _add_updates(words, first, count, sums)
    if words[Y_HALF]:
        bits = halves(words[Y], m, o)
        for n in range(m):
            row, mine = bits[n], sums[n]
            for j in range(count):
                put(row, first + j, mine[j])
    else:
        numbers = floats(words[Y], m, o)
        for n in range(m):
            for j in range(count):
                numbers[n, first + j] = sums[n, j]


def _multiply(pointer):
    words = words_at(pointer)
    m, x_row = words[M], words[X_ROW]
    step = COLUMNS if m <= ROWS else TILE  # as few as fit the nearest cache; the bits are the same
    weights = np.zeros((step, x_row), np.float32)
    w = weights.ctypes.data
    sums = np.empty((m, TILE), np.float32)
    out = sums.ctypes.data
    while True:
        tile = take(pointer)
        if tile >= words[TILES]:
            return
        first = tile * TILE
        count = min(TILE, words[O] - first)
        for done in range(0, count, step):
            _widen(words, first + done, min(step, count - done), weights)
            for start in range(0, m, ROWS):
                rows = min(ROWS, m - start)
                x, here = words[X] + 4 * start * x_row, out + 4 * start * TILE
                for j in range(0, step, COLUMNS):
                    y = here + 4 * (done + j)
                    dots(x, x_row, rows, w + 4 * j * x_row, x_row, x_row, y, TILE)
        _write(words, first, count, sums)


MULTIPLY = Kernel(_multiply)


@dataclass(frozen=True)
class Update:
    """What the adapters add to one layer's output."""

    units: np.ndarray
    """[N, R] float32, weighted."""
    pages: np.ndarray
    """[rows, R] int32: of each row's units, places in B."""
    counts: np.ndarray
    """[rows, 2] int32: how many, first."""
    row_of: np.ndarray
    """[N] int32: the row of each token."""
    B: np.ndarray
    """[pages, o], float32 or bfloat16's bits."""

    def added_to(self, y: Tensor) -> Tensor:
        """y [..., o] with the update added, by PyTorch: for a layer without a kernel."""
        flat = y.reshape(-1, y.shape[-1]).float()
        B = torch.from_numpy(self.B)
        B = (B.view(torch.bfloat16) if self.B.dtype == np.uint16 else B).float()
        for n, row in enumerate(self.row_of):
            R = self.counts[row, 0]
            flat[n] += torch.from_numpy(self.units[n, :R]) @ B[self.pages[row, :R]]
        return flat.to(y.dtype).view(y.shape)


class Weight:
    """A linear layer's weight [o, i] where it lies, and its product."""

    def __init__(
        self,
        weight: Tensor,
        size: tuple[int, int],
        *,
        scales: Tensor | None = None,
        bias: Tensor | None = None,
    ):
        """`size` is (o, i); `weight` holds it in rows, or NF4's codes of them with `scales`
        [o, i / BLOCK]."""
        self.o, self.i = size
        self._held = weight, scales, None if bias is None else bias.float().contiguous()
        words = self._words = np.zeros(WORDS, np.int64)
        kind = FLOATS if weight.dtype == torch.float32 else HALVES
        words[[O, I, X_ROW]] = self.o, self.i, paired(self.i)
        words[[KIND, W]] = CODES if scales is not None else kind, weight.data_ptr()
        if scales is not None:
            words[SCALES] = scales.data_ptr()
        if self._held[2] is not None:
            words[BIAS] = self._held[2].data_ptr()

    def multiply(self, x: Tensor, dtype: torch.dtype, update: Update | None = None) -> Tensor:
        """y [N, o] in `dtype`, of x [N, paired(i)] in float32 (`widened`)."""
        n = x.shape[0]
        y = torch.empty(n, self.o, dtype=dtype)
        words = self._words
        words[M], words[X], words[Y] = n, x.data_ptr(), y.data_ptr()
        words[Y_HALF] = dtype == torch.bfloat16
        words[UNITS] = 0
        if update is not None:
            units, B_ = update.units, update.B
            words[UNITS], words[UNITS_ROW] = units.ctypes.data, units.shape[1]
            words[PAGES], words[PAGES_ROW] = update.pages.ctypes.data, update.pages.shape[1]
            words[COUNTS], words[ROW_OF] = update.counts.ctypes.data, update.row_of.ctypes.data
            words[B], words[B_HALF] = B_.ctypes.data, B_.dtype == np.uint16
            words[PAGE_COUNT] = B_.shape[0]
        MULTIPLY.run(words, -(-self.o // TILE))
        return y
