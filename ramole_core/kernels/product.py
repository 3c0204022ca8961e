"""y = x W^T + bias (+ the adapters' update), of a weight in NF4, int4, int8, bfloat16 or
float32.

A tile is a few outputs: their weights are widened once for every row of x, or, where rows are few,
in registers. Each y[m, j] is one sum of `dots`, so no other row and no size of tile changes its
bits. Two kernels differ in what they sum: MULTIPLY float32, of x in the order of `dots`, and
MULTIPLY_HALVES bfloat16, where the CPU multiplies it (`half_dots`): many rows take half the time of
widening both. There x is bfloat16 as it lies, and 4-bit weights are rounded to bfloat16, as the
matrix unit reads them.
"""

import numpy as np

from ramole_core.kernels.call_args import TILES, bytes_at, floats, halves, take, words_at
from ramole_core.kernels.compiled import kernel
from ramole_core.kernels.direct import (
    AHEAD,
    MAX_DIRECT_ROWS,
    dots_of_bytes,
    dots_of_codes,
    dots_of_grid,
    dots_of_halves,
)
from ramole_core.kernels.dots import COLUMNS, NONE, dots, four_rows
from ramole_core.kernels.half_dots import (
    DEPTH,
    half_dots,
    half_dots_of_codes,
    half_dots_of_grid,
    narrow_codes,
    narrow_grid,
)
from ramole_core.kernels.outputs import (
    BYTES,
    CODES,
    GRID,
    HALVES,
    KIND,
    SCALES,
    SPAN,
    TILE,
    UNITS,
    X_ROW,
    I,
    M,
    O,
    W,
    X,
    prefetch_updates,
    write,
)
from ramole_core.kernels.team import Kernel
from ramole_core.kernels.threads import thread_count
from ramole_core.kernels.widen import (
    BLOCK,
    GRID_BYTES,
    PAIR,
    PERMUTES,
    widen_bytes,
    widen_floats,
    widen_grid,
    widen_halves,
    widen_nf4,
)

ROWS = 96
"""Rows of x that stay in the cache while a tile is computed."""
SHARES, MAX_TILES = 6, 32
"""How many tiles a thread takes, about, and of a tile, the most TILEs."""


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
        elif kind == GRID:
            grid = words[SCALES] + GRID_BYTES * row * (i // BLOCK)
            widen_grid(words[W] + row * (i // 2), grid, i, weights[j])
        elif kind == BYTES:
            widen_bytes(bytes_at(words[W] + row * i, 1, i)[0], i, weights[j])
        elif kind == HALVES:
            widen_halves(halves(words[W] + 2 * row * i, 1, i)[0], i, weights[j])
        else:
            widen_floats(floats(words[W] + 4 * row * i, 1, i)[0], i, weights[j])


@kernel()
def _reads_in_place(words):
    """Whether the weight can be read in place."""
    if words[KIND] == CODES:
        return PERMUTES
    if words[KIND] == GRID:
        return True
    return words[KIND] in (HALVES, BYTES) and words[I] % PAIR == 0


@kernel()
def _four_at(words, row, last):
    """The addresses of COLUMNS rows of W from `row` on, and of their scales, where it has some; of
    row `last` for those behind it."""
    i, kind = words[I], words[KIND]
    size, step = i, 0
    if kind == CODES or kind == GRID:
        size, step = i // 2, (4 if kind == CODES else GRID_BYTES) * (i // BLOCK)
    elif kind == HALVES:
        size = 2 * i
    scales = four_rows(words[SCALES] + row * step, step, last)
    return four_rows(words[W] + row * size, size, last), scales


@kernel()
def _accumulate(words, first, count, sums):
    """sums[:, :count] of all rows of x, by the weights where they lie."""
    i, m, x, width, kind = words[I], words[M], (words[X], words[X_ROW]), sums.shape[1], words[KIND]
    for done in range(0, count, COLUMNS):
        w, scales = _four_at(words, first + done, count - 1 - done)
        out = (sums.ctypes.data + 4 * done, width)
        if kind == CODES:
            dots_of_codes(x, m, w, scales, AHEAD, i, out)
        elif kind == GRID:
            dots_of_grid(x, m, w, scales, AHEAD, i, out)
        elif kind == BYTES:
            dots_of_bytes(x, m, w, NONE, AHEAD, i, out)
        else:
            dots_of_halves(x, m, w, NONE, AHEAD, i, out)


@kernel()
def _accumulate_halves(words, first, count, sums):
    """`_accumulate` of bfloat16."""
    i, m, x, width, kind = words[I], words[M], (words[X], words[I]), sums.shape[1], words[KIND]
    for done in range(0, count, COLUMNS):
        w, scales = _four_at(words, first + done, count - 1 - done)
        out = (sums.ctypes.data + 4 * done, width)
        if kind == CODES:
            half_dots_of_codes(x, m, w, scales, AHEAD, i, out)
        elif kind == GRID:
            half_dots_of_grid(x, m, w, scales, AHEAD, i, out)
        else:
            half_dots(x, m, w, NONE, AHEAD, i, out)


@kernel()
def _widen_and_accumulate(words, first, count, weights, sums):
    """Widen weights once for all rows, then accumulate."""
    m, x_row, step, width = words[M], words[X_ROW], weights.shape[0], sums.shape[1]
    w = weights.ctypes.data
    for done in range(0, count, step):
        _widen(words, first + done, min(step, count - done), weights)
        for start in range(0, m, ROWS):
            rows = min(ROWS, m - start)
            x, here = words[X] + 4 * start * x_row, sums.ctypes.data + 4 * start * width
            for j in range(0, step, COLUMNS):
                dots(x, x_row, rows, w + 4 * j * x_row, x_row, x_row, here + 4 * (done + j), width)


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


@kernel()
def _scale(words, first, count, sums):
    """Sums of int8 numbers times the scale of their row."""
    scales = floats(words[SCALES] + 4 * first, 1, count)[0]
    for n in range(words[M]):
        for j in range(count):
            sums[n, j] *= scales[j]


def _multiply(pointer):
    words = words_at(pointer)
    m, span = words[M], words[SPAN]
    direct = m <= MAX_DIRECT_ROWS and _reads_in_place(words)
    step = COLUMNS if m <= ROWS else TILE  # as few as fit the nearest cache; the bits are the same
    weights = np.zeros((0 if direct else step, words[X_ROW]), np.float32)
    sums = np.empty((m, span), np.float32)
    while True:
        tile = take(pointer)
        if tile >= words[TILES]:
            return
        first = tile * span
        count = min(span, words[O] - first)
        if direct:
            if words[UNITS]:
                prefetch_updates(words, first, count)
            _accumulate(words, first, count, sums)
        else:
            _widen_and_accumulate(words, first, count, weights, sums)
        if words[KIND] == BYTES:
            _scale(words, first, count, sums)
        write(words, first, count, sums)


def _multiply_halves(pointer):
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
                prefetch_updates(words, first, count)
            _accumulate_halves(words, first, count, sums)
        else:
            _narrow_and_accumulate(words, first, count, weights, sums)
        write(words, first, count, sums)


MULTIPLY, MULTIPLY_HALVES = Kernel(_multiply), Kernel(_multiply_halves)


def takes(i: int) -> bool:
    """Whether inputs of this length are whole vectors."""
    return i % DEPTH == 0


def span_of(m: int, o: int) -> int:
    """The outputs of a tile; for few rows, which stream the weights, tiles are long."""
    if m > MAX_DIRECT_ROWS:
        return TILE
    share = o // (SHARES * thread_count()) // TILE
    return TILE * min(max(share, 1), MAX_TILES)
