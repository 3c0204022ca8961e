"""Shared parts of the product kernels: argument words, updates and outputs.

The adapters' update is added before y is rounded:

    y[m] += sum_c units[m, c] B[page c of m's row]
"""

import numpy as np

from ramole_core.kernels.call_args import floats, halves, ints, prefetch
from ramole_core.kernels.compiled import kernel, put, wide
from ramole_core.kernels.outers import columns_of, outers

TILE = 16
"""Outputs that are written together."""
MIN_COPIED_ROWS = 4
"""Fewer rows than these read a page's columns where they lie; more of them read a copy."""
MAX_DENSE_UNITS = 24
"""Units of a row up to which all are added, also those that are 0."""
LINE = 64
"""Bytes of a cache line."""
FLOATS, HALVES, CODES, BYTES, GRID = 0, 1, 2, 3, 4
"""What a weight is made of: float32, bfloat16, NF4, int8 with a scale a row, or int4."""
(M, X, Y, Y_HALF, I, O, X_ROW, KIND, W, SCALES, BIAS) = range(2, 13)
(UNITS, UNITS_ROW, PAGES, PAGES_ROW, COUNTS, ROW_OF, B, B_HALF, PAGE_COUNT) = range(13, 22)
LAYOUTS, SPAN, SPLIT = 22, 23, 24
"""The words of a call, behind the two of every call; SPAN: outputs of a tile; SPLIT: the units as
`matrix_update.split_units` leaves them, 0 where they are not."""


@kernel()
def add_updates(words, first, count, sums):
    """sums [m, width] += units times the `count` columns of B from `first` on; neighbouring rows of
    one request share them."""
    m, pages_row, width = words[M], words[PAGES_ROW], sums.shape[1]
    units, row_of = words[UNITS], ints(words[ROW_OF], 1, m)[0]
    start = 0
    while start < m:
        row, end = row_of[start], start + 1
        while end < m and row_of[end] == row:
            end += 1
        pages = ints(words[PAGES] + 4 * row * pages_row, 1, max(pages_row, 1))[0]
        R = ints(words[COUNTS] + 8 * row, 1, 2)[0, 0]
        out = sums.ctypes.data + 4 * start * width
        if R > 0 and end - start < MIN_COPIED_ROWS and count == width:
            half = words[B_HALF]
            w = words[B] + (2 if half else 4) * first
            for n in range(start, end):
                x = units + 4 * n * words[UNITS_ROW]
                if R > MAX_DENSE_UNITS:
                    _columns_of_used(x, pages, R, w, words[O], half, out, width)
                else:
                    columns_of(x, pages.ctypes.data, R, w, words[O], half, out, width)
                out += 4 * width
        elif R > 0:
            columns = np.zeros((R, width), np.float32)
            _columns(words, pages, first, count, columns)
            x = units + 4 * start * words[UNITS_ROW]
            _accumulate(columns, x, words[UNITS_ROW], end - start, out)
        start = end


@kernel()
def _columns_of_used(x, pages, R, w, w_row, half, out, columns):
    """`columns_of` without the units that are 0, which change nothing."""
    units = floats(x, 1, R)[0]
    numbers, places, used = np.empty(R, np.float32), np.empty(R, np.int32), 0
    for c in range(R):
        if units[c] != 0:
            numbers[used], places[used] = units[c], pages[c]
            used += 1
    if used:
        columns_of(numbers.ctypes.data, places.ctypes.data, used, w, w_row, half, out, columns)


@kernel()
def prefetch_updates(words, first, count):
    """Prefetch the columns of B that `add_updates` reads: a few of each page, far apart."""
    size, o = 2 if words[B_HALF] else 4, words[O]
    pages_row, row_of = words[PAGES_ROW], ints(words[ROW_OF], 1, words[M])[0]
    for n in range(words[M]):
        row = row_of[n]
        if n and row == row_of[n - 1]:
            continue
        pages = ints(words[PAGES] + 4 * row * pages_row, 1, max(pages_row, 1))[0]
        units = floats(words[UNITS] + 4 * n * words[UNITS_ROW], 1, words[UNITS_ROW])[0]
        for c in range(ints(words[COUNTS] + 8 * row, 1, 2)[0, 0]):
            if units[c] == 0:
                continue
            start = words[B] + size * (o * np.int64(pages[c]) + first)
            for place in range(start, start + size * count, LINE):
                prefetch(place)


@kernel()
def _accumulate(columns, x, x_row, rows, out):
    """out += x columns, addresses of x and out; a separate call, which keeps the array alive."""
    R, width = columns.shape
    outers(x, x_row, rows, columns.ctypes.data, width, R, out, width, width)


@kernel()
def _columns(words, pages, first, count, columns):
    """columns[:, :count] = B at these pages, in float32."""
    R = len(columns)
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
def write(words, first, count, sums):
    """y's columns from `first` on, rounded to what y holds."""
    m, o = words[M], words[O]
    if words[BIAS]:
        bias = floats(words[BIAS], 1, o)[0]
        for n in range(m):
            for j in range(count):
                sums[n, j] += bias[first + j]
    if words[UNITS]:
        add_updates(words, first, count, sums)
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
