"""The product of `product` by the CPU's matrix unit, of a weight in NF4, int4 or bfloat16.

A tile is 32 outputs: their weights are laid out as bfloat16 once (or read where they lie, where
they are that) and multiplied with 32 rows of x at a time. A y[m, j] is one sum of the unit's, in
one order however many rows there are.
"""

import numpy as np

from ramole_core.kernels.call_args import TILES, ints, prefetch, take, words_at
from ramole_core.kernels.compiled import kernel
from ramole_core.kernels.direct import MAX_DIRECT_ROWS
from ramole_core.kernels.matrix_input import LINE, OUTPUTS, STEP, lay_codes, lay_grid, lay_row
from ramole_core.kernels.matrix_unit import (
    DEPTH,
    SIDE,
    SQUARE,
    add_half,
    add_one,
    add_two,
    keep_layout,
    lay_out,
    layouts,
    restore_layout,
    round_rows,
    store_one,
    store_two,
    turn,
    zero_sums,
)
from ramole_core.kernels.matrix_update import add_pages_of, update_room_of
from ramole_core.kernels.outputs import (
    BIAS,
    CODES,
    COUNTS,
    HALVES,
    KIND,
    LAYOUTS,
    PAGES,
    PAGES_ROW,
    ROW_OF,
    SCALES,
    SPAN,
    SPLIT,
    UNITS,
    UNITS_ROW,
    B,
    I,
    M,
    O,
    W,
    X,
    Y,
    add_updates,
    prefetch_updates,
    write,
)
from ramole_core.kernels.product import MAX_TILES, SHARES
from ramole_core.kernels.team import Kernel
from ramole_core.kernels.threads import thread_count
from ramole_core.kernels.widen import BLOCK, GRID_BYTES

HOW_LAID = layouts()
"""For each number of columns, the unit's configuration; its address is a word of the call."""
DEPTHS = BLOCK // DEPTH
"""Of a block of weights."""
PART = 9
"""Blocks of a row that are laid out before they are multiplied: a left tile of them, of all depths,
and their inputs fit the nearest cache."""
(ADD_TO_FIRST, ADD_TO_SECOND), (ADD_TWO_TO_FIRST, ADD_TWO_TO_SECOND) = add_half


@kernel()
def _lay_part(words, first, rows, block, blocks, out, depth):
    """Blocks of 4-bit weights of `rows` outputs from `first` on as rows of left tiles, `depth`
    bytes from one depth to the next."""
    row = words[I] // BLOCK
    for j in range(rows):
        at = (first + j) * row + block
        codes, place = words[W] + BLOCK // 2 * at, out + LINE * j
        if words[KIND] == CODES:
            lay_codes(codes, words[SCALES] + 4 * at, blocks, place, depth)
        else:
            lay_grid(codes, words[SCALES] + GRID_BYTES * at, blocks, place, depth)


@kernel()
def _lay(words, first, count, out):
    """The weights of `count` outputs from `first` on as two left tiles a depth."""
    i = words[I]
    if words[KIND] == HALVES:
        for j in range(count):
            lay_row(words[W] + 2 * (first + j) * i, i, out + LINE * j)
    else:
        _lay_part(words, first, count, 0, i // BLOCK, out, STEP)


@kernel()
def _right(words, start, depth):
    """Addresses of the right tiles of rows from `start` on at a depth, and bytes of a row of the
    last of them."""
    here = min(2 * SIDE, words[M] - start)
    size = SQUARE * -(-words[I] // DEPTH)  # of a right tile along all depths
    right = words[X] + start // SIDE * size
    row = 4 * (here - SIDE if here > SIDE else here)
    if here > SIDE:
        return right + depth * SQUARE, right + size + depth * SIDE * row, row
    return right + depth * SIDE * row, right + depth * SIDE * row, row


@kernel()
def _take_sums(words, start, found, sums):
    """Move the unit's sums of rows from `start` on to theirs of sums [m, OUTPUTS]."""
    if words[M] == 1:
        store_one(sums, 4)
        return
    tiles = 2 if words[M] - start > SIDE else 1
    if tiles == 2:
        store_two(found, 4 * SIDE)
    else:
        store_one(found, 4 * SIDE)
    for a in range(2):
        for b in range(tiles):
            out = sums + 4 * (OUTPUTS * (start + b * SIDE) + a * SIDE)
            turn(found + SQUARE * (tiles * a + b), 4 * SIDE, out, 4 * OUTPUTS)


@kernel()
def _configure(words, start):
    """Set the sizes of tiles for the rows of x from `start` on, where they change."""
    here = min(2 * SIDE, words[M] - start)
    columns = here - SIDE if here > SIDE else here
    if start == 0 or columns < SIDE:
        lay_out(words[LAYOUTS] + LINE * columns)


@kernel()
def _add(words, left, left_next, left_step, left_row, start, depth, steps):
    """Add the products of some depths of two left tiles and up to 2 * SIDE rows of x."""
    right, last, row = _right(words, start, depth)
    if words[M] - start > SIDE:
        add_two(left, left_next, left_step, left_row, steps, right, last, row)
    else:
        add_one(left, left_next, left_step, left_row, steps, right, last, row)


@kernel()
def _sum(words, left, left_next, left_step, left_row, found, sums):
    """sums [m, OUTPUTS] of all rows of x, from two left tiles a depth."""
    steps = -(-words[I] // DEPTH)
    for start in range(0, words[M], 2 * SIDE):
        _configure(words, start)
        zero_sums()
        _add(words, left, left_next, left_step, left_row, start, 0, steps)
        _take_sums(words, start, found, sums)


@kernel()
def _sum_in_place(words, first, found, sums):
    """`_sum` by bfloat16 weights where they lie; those of the next outputs are prefetched, which
    the CPU does not do by itself for rows side by side."""
    row = 2 * words[I]
    left = words[W] + first * row
    for start in range(0, words[M], 2 * SIDE):
        _configure(words, start)
        zero_sums()
        for depth in range(words[I] // DEPTH):
            place = left + LINE * depth
            if start == 0:
                for j in range(OUTPUTS, 2 * OUTPUTS):
                    prefetch(place + j * row)
            _add(words, place, SIDE * row, LINE, row, start, depth, 1)
        _take_sums(words, start, found, sums)


@kernel()
def _add_half(words, left, half, block, blocks):
    """Add the products of some blocks of one left tile and up to 2 * SIDE rows of x."""
    right, last, row = _right(words, 0, DEPTHS * block)
    steps = DEPTHS * blocks
    if words[M] > SIDE:
        if half:
            ADD_TWO_TO_SECOND(left, 0, SIDE * LINE, LINE, steps, right, last, row)
        else:
            ADD_TWO_TO_FIRST(left, 0, SIDE * LINE, LINE, steps, right, last, row)
    elif half:
        ADD_TO_SECOND(left, 0, SIDE * LINE, LINE, steps, right, last, row)
    else:
        ADD_TO_FIRST(left, 0, SIDE * LINE, LINE, steps, right, last, row)


@kernel()
def _stream(words, first, count, room, found, sums):
    """`_sum` of up to 2 * SIDE rows of x and 4-bit weights, which are read row by row and laid out
    left tile by left tile: what one of few rows waits for is the memory."""
    whole = words[I] // BLOCK
    zero_sums()
    for block in range(0, whole, PART):
        blocks = min(PART, whole - block)
        for half in range(2 if count > SIDE else 1):
            start = SIDE * half
            rows = min(count - start, SIDE)
            _lay_part(words, first + start, rows, block, blocks, room, SIDE * LINE)
            _add_half(words, room, half, block, blocks)
    _take_sums(words, 0, found, sums)


@kernel()
def _add_updates(words, first, sums, room):
    """`add_updates` of OUTPUTS columns by the unit, where the units were split for it."""
    m, pages_row, row_of = words[M], words[PAGES_ROW], ints(words[ROW_OF], 1, words[M])[0]
    start = 0
    while start < m:
        row, end = row_of[start], start + 1
        while end < m and row_of[end] == row:
            end += 1
        pages = ints(words[PAGES] + 4 * row * pages_row, 1, pages_row)[0]
        R, width = ints(words[COUNTS] + 8 * row, 1, 2)[0, 0], words[UNITS_ROW]
        if R > 0:
            columns, step = words[B] + 2 * first, 2 * words[O]
            units = words[SPLIT] + 4 * width * start
            out = sums.ctypes.data + 4 * OUTPUTS * start
            add_pages_of(columns, pages, R, step, units, width, end - start, out, room)
        start = end


@kernel()
def _write(words, first, sums, zeros, room):
    """y's OUTPUTS columns from `first` on."""
    if words[UNITS]:
        if words[SPLIT]:
            _add_updates(words, first, sums, room)
        else:
            add_updates(words, first, OUTPUTS, sums)
    bias = words[BIAS] + 4 * first if words[BIAS] else zeros.ctypes.data
    y, row = words[Y] + 2 * first, 2 * words[O]
    for a in (0, SIDE):
        sums_at = sums.ctypes.data + 4 * a
        round_rows(sums_at, 4 * OUTPUTS, words[M], bias + 4 * a, y + 2 * a, row)


def _multiply(pointer):
    words = words_at(pointer)
    m, i, o, span = words[M], words[I], words[O], words[SPAN]
    coded = words[KIND] != HALVES
    streams = coded and m <= 2 * SIDE
    size = PART * DEPTHS * SIDE * LINE if streams else -(-i // DEPTH) * STEP
    more = update_room_of(words[PAGES_ROW]) if words[UNITS] else 0
    room = np.empty(size + 4 * SQUARE + LINE + more, np.uint8)
    layout = np.empty(LINE, np.uint8)
    keep_layout(layout.ctypes.data)
    if i % DEPTH:
        room[:] = 0  # the last depth is not filled
    most = (-(-m // SIDE) + 1) * SIDE
    sums = np.empty((most, OUTPUTS), np.float32)
    zeros = np.zeros(OUTPUTS, np.float32)
    lies = not coded and i % DEPTH == 0
    if streams:
        _configure(words, 0)
    while True:
        tile = take(pointer)
        if tile >= words[TILES]:
            break
        # taken anew for each tile: memory whose array is not used again is freed at once
        laid = -(-room.ctypes.data // LINE) * LINE
        found = laid + size
        if streams and words[UNITS] and m <= MAX_DIRECT_ROWS:
            prefetch_updates(words, tile * span, min(span, o - tile * span))
        for first in range(tile * span, min((tile + 1) * span, o), OUTPUTS):
            count = min(OUTPUTS, o - first)
            if streams:
                _stream(words, first, count, laid, found, sums.ctypes.data)
            elif lies and count == OUTPUTS:
                _sum_in_place(words, first, found, sums.ctypes.data)
            else:
                _lay(words, first, count, laid)
                _sum(words, laid, SIDE * LINE, STEP, LINE, found, sums.ctypes.data)
            if count == OUTPUTS:
                _write(words, first, sums, zeros, found + 4 * SQUARE)
            else:
                write(words, first, count, sums)
    restore_layout(layout.ctypes.data)


MULTIPLY_IN_UNIT = Kernel(_multiply)


def span_of(m: int, o: int) -> int:
    """The outputs of a tile of the call; for few rows, which stream the weights, it is long."""
    share = o // (SHARES * thread_count()) // OUTPUTS if m <= 2 * SIDE else 1
    return OUTPUTS * min(max(share, 1), MAX_TILES // 2)
