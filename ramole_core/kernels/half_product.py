"""y = x W^T + bias (+ the adapters' update) of bfloat16 x, and of a weight in bfloat16, NF4 or int4
whose numbers are rounded to bfloat16, as the matrix unit reads them.

Where the CPU multiplies bfloat16 (`half_dots`), many rows take half the time of widening both. Each
y[m, j] is one `half_dots`, so no other row and no size of tile changes its bits.
"""

import numpy as np

from ramole_core.kernels.call_args import TILES, take, words_at
from ramole_core.kernels.compiled import kernel
from ramole_core.kernels.direct import AHEAD, MAX_DIRECT_ROWS
from ramole_core.kernels.dots import COLUMNS
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
    i, m, width = words[I], words[M], sums.shape[1]
    x, last = words[X], first + count - 1
    for done in range(0, count, COLUMNS):
        row, out = first + done, sums.ctypes.data + 4 * done
        second, third, fourth = min(row + 1, last), min(row + 2, last), min(row + 3, last)
        if words[KIND] in (CODES, GRID):
            w, step = words[W], i // 2
            a, b, c, d = w + row * step, w + second * step, w + third * step, w + fourth * step
            s, step = words[SCALES], (4 if words[KIND] == CODES else GRID_BYTES) * (i // BLOCK)
            e, f, g, h = s + row * step, s + second * step, s + third * step, s + fourth * step
            if words[KIND] == CODES:
                half_dots_of_codes(x, i, m, a, b, c, d, e, f, g, h, AHEAD, i, out, width)
            else:
                half_dots_of_grid(x, i, m, a, b, c, d, e, f, g, h, AHEAD, i, out, width)
        else:
            w, step = words[W], 2 * i
            a, b, c, d = w + row * step, w + second * step, w + third * step, w + fourth * step
            half_dots(x, i, m, a, b, c, d, AHEAD, i, out, width)


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
            x, here = words[X] + 2 * start * i, sums.ctypes.data + 4 * start * width
            for j in range(0, step, COLUMNS):
                out, most = here + 4 * (done + j), rows - 1
                a, b = w + 2 * min(j, most) * i, w + 2 * min(j + 1, most) * i
                c, d = w + 2 * min(j + 2, most) * i, w + 2 * min(j + 3, most) * i
                half_dots(x, i, some, a, b, c, d, ahead, i, out, width)


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
