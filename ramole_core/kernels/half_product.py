"""y = x W^T + bias (+ the adapters' update) of bfloat16 x, and of a weight in bfloat16, NF4 or int4
whose numbers are rounded to bfloat16, as the matrix unit reads them.

Where the CPU multiplies bfloat16 (`half_dots`), many rows take half the time of widening both. Each
y[m, j] is one `half_dots`, so no other row and no size of tile changes its bits.
"""

import numpy as np

from ramole_core.kernels.call_args import TILES, take, words_at
from ramole_core.kernels.compiled import kernel
from ramole_core.kernels.direct import AHEAD, MAX_DIRECT_ROWS
from ramole_core.kernels.dots import COLUMNS, NONE, four_rows
from ramole_core.kernels.half_dots import (
    DEPTH,
    half_dots,
    half_dots_of_codes,
    half_dots_of_grid,
    narrow_codes,
    narrow_grid,
)
from ramole_core.kernels.outputs import (
    CODES,
    GRID,
    KIND,
    SCALES,
    SPAN,
    TILE,
    UNITS,
    I,
    M,
    O,
    W,
    X,
    ask_updates,
    write,
)
from ramole_core.kernels.product import ROWS
from ramole_core.kernels.team import Kernel
from ramole_core.kernels.widen import BLOCK, GRID_BYTES


@kernel()
def _accumulate(words, first, count, sums):
    """sums[:, :count] of all rows of x, by the weights where they lie."""
    i, m, width, kind = words[I], words[M], sums.shape[1], words[KIND]
    x = (words[X], i)
    for done in range(0, count, COLUMNS):
        row, last, out = first + done, count - 1 - done, (sums.ctypes.data + 4 * done, width)
        if kind == CODES or kind == GRID:
            w = four_rows(words[W] + row * (i // 2), i // 2, last)
            step = (4 if kind == CODES else GRID_BYTES) * (i // BLOCK)
            scales = four_rows(words[SCALES] + row * step, step, last)
            if kind == CODES:
                half_dots_of_codes(x, m, w, scales, AHEAD, i, out)
            else:
                half_dots_of_grid(x, m, w, scales, AHEAD, i, out)
        else:
            w = four_rows(words[W] + 2 * row * i, 2 * i, last)
            half_dots(x, m, w, NONE, AHEAD, i, out)


@kernel()
def _narrow_and_accumulate(words, first, count, weights, sums):
    """Widen 4-bit weights once for all rows, then accumulate; `weights` holds some rows of them."""
    i, m, step, width = words[I], words[M], weights.shape[0], sums.shape[1]
    codes = words[KIND] in (CODES, GRID)
    for done in range(0, count, step):
        rows = min(step, count - done)
        w = words[W] + 2 * (first + done) * i
        if codes:
            for j in range(rows):
                block = (first + done + j) * (i // BLOCK)
                source, out = words[W] + block * (BLOCK // 2), weights.ctypes.data + 2 * j * i
                if words[KIND] == CODES:
                    narrow_codes(source, words[SCALES] + 4 * block, i, out)
                else:
                    narrow_grid(source, words[SCALES] + GRID_BYTES * block, i, out)
            w = weights.ctypes.data
        for start in range(0, m, ROWS):
            some, ahead = min(ROWS, m - start), 0 if codes or start else AHEAD
            x, here = (words[X] + 2 * start * i, i), sums.ctypes.data + 4 * start * width
            for j in range(0, step, COLUMNS):
                out, begin = (here + 4 * (done + j), width), min(j, rows - 1)
                four = four_rows(w + 2 * begin * i, 2 * i, rows - 1 - begin)
                half_dots(x, some, four, NONE, ahead, i, out)


def _multiply(pointer):
    words = words_at(pointer)
    m, span = words[M], words[SPAN]
    direct = m <= MAX_DIRECT_ROWS
    step = COLUMNS if m <= ROWS else TILE
    weights = np.empty((0 if direct else step, words[I]), np.uint16)
    sums = np.empty((m, span), np.float32)
    while True:
        tile = take(pointer)
        if tile >= words[TILES]:
            return
        first = tile * span
        count = min(span, words[O] - first)
        if direct:
            if words[UNITS]:
                ask_updates(words, first, count)
            _accumulate(words, first, count, sums)
        else:
            _narrow_and_accumulate(words, first, count, weights, sums)
        write(words, first, count, sums)


MULTIPLY_HALVES = Kernel(_multiply)


def takes(i: int) -> bool:
    """Whether inputs of this length are whole vectors."""
    return i % DEPTH == 0
