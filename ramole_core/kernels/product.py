"""y = x W^T + bias (+ the adapters' update), of a weight in NF4, bfloat16 or float32.

A tile is a few outputs: their weights are widened to float32 once and met by every row of x. Each
y[m, j] is one `dots`, so no other row and no size of tile changes its bits.
"""

import numpy as np

from ramole_core.kernels.compiled import kernel
from ramole_core.kernels.dots import COLUMNS, dots
from ramole_core.kernels.outputs import (
    CODES,
    HALVES,
    KIND,
    SCALES,
    TILE,
    X_ROW,
    I,
    M,
    O,
    W,
    X,
    write,
)
from ramole_core.kernels.team import Kernel
from ramole_core.kernels.widen import BLOCK, widen_floats, widen_halves, widen_nf4
from ramole_core.kernels.words import TILES, bytes_at, floats, halves, take, words_at

ROWS = 96
"""Rows of x that stay in the cache while they meet a tile."""


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
        write(words, first, count, sums)


MULTIPLY = Kernel(_multiply)
