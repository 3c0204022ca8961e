"""The product of `product` by the CPU's matrix unit, of a weight in NF4 or bfloat16.

A tile is 32 outputs: their weights are laid out as bfloat16 once (or read where they lie, where
they are that) and multiplied with 32 rows of x at a time. A y[m, j] is one sum of the unit's.
"""

import numpy as np

from ramole_core.kernels.call_args import TILES, floats, take, words_at
from ramole_core.kernels.compiled import kernel
from ramole_core.kernels.matrix_input import STEP, halves_of_codes, lay_row
from ramole_core.kernels.matrix_unit import (
    DEPTH,
    SIDE,
    lay_out,
    layouts,
    multiply_one,
    multiply_two,
    release,
    round_rows,
    turn,
)
from ramole_core.kernels.outputs import (
    BIAS,
    CODES,
    HALVES,
    KIND,
    LAYOUTS,
    SCALES,
    UNITS,
    I,
    M,
    O,
    W,
    X,
    Y,
    add_updates,
    write,
)
from ramole_core.kernels.team import Kernel
from ramole_core.kernels.widen import BLOCK

OUTPUTS = 2 * SIDE
"""Outputs of a tile."""
LINE = 64
"""Bytes of a cache line, and of a row of a left tile."""
SQUARE = 4 * SIDE * SIDE
"""Bytes of a tile of sums."""
HOW_LAID = layouts()
"""For each number of columns, the unit's configuration; its address is a word of the call."""


@kernel()
def _lay(words, first, count, out):
    """The weights of `count` outputs from `first` on as two left tiles a depth."""
    i = words[I]
    for j in range(count):
        row, place = first + j, out + LINE * j
        if words[KIND] == CODES:
            scales = floats(words[SCALES] + 4 * row * (i // BLOCK), 1, i // BLOCK)[0]
            halves_of_codes(words[W] + row * (i // 2), scales, i // BLOCK, place)
        else:
            lay_row(words[W] + 2 * row * i, i, place)


@kernel()
def _sum(words, left, left_next, left_step, left_row, found, sums):
    """sums [m, OUTPUTS] of all rows of x, from two left tiles a depth."""
    m, steps, layout = words[M], -(-words[I] // DEPTH), words[LAYOUTS]
    block = SIDE * SIDE * 4 * steps  # bytes of a right tile along all depths
    for start in range(0, m, 2 * SIDE):
        here = min(2 * SIDE, m - start)
        columns = here - SIDE if here > SIDE else here
        if start == 0 or columns < SIDE:
            lay_out(layout + LINE * columns)
        right = words[X] + start // SIDE * block
        if here > SIDE:
            last, row = right + block, 4 * columns
            multiply_two(left, left_next, left_step, left_row, steps, right, last, row, found)
        else:
            row = 4 * columns
            multiply_one(left, left_next, left_step, left_row, steps, right, right, row, found)
        tiles = 2 if here > SIDE else 1
        for a in range(2):
            for b in range(tiles):
                out = sums + 4 * (OUTPUTS * (start + b * SIDE) + a * SIDE)
                turn(found + SQUARE * (tiles * a + b), 4 * SIDE, out, 4 * OUTPUTS)


@kernel()
def _write(words, first, sums, zeros):
    """y's OUTPUTS columns from `first` on."""
    if words[UNITS]:
        add_updates(words, first, OUTPUTS, sums)
    bias = words[BIAS] + 4 * first if words[BIAS] else zeros.ctypes.data
    y, row = words[Y] + 2 * first, 2 * words[O]
    for a in (0, SIDE):
        sums_at = sums.ctypes.data + 4 * a
        round_rows(sums_at, 4 * OUTPUTS, words[M], bias + 4 * a, y + 2 * a, row)


def _multiply(pointer):
    words = words_at(pointer)
    m, i, o = words[M], words[I], words[O]
    steps = -(-i // DEPTH)
    room = np.empty(steps * STEP + 4 * SQUARE + LINE, np.uint8)
    if i % DEPTH:
        room[:] = 0  # the last depth is not filled
    most = -(-m // SIDE) * SIDE
    sums = np.empty((most, OUTPUTS), np.float32)
    zeros = np.zeros(OUTPUTS, np.float32)
    lies = words[KIND] == HALVES and i % DEPTH == 0
    while True:
        tile = take(pointer)
        if tile >= words[TILES]:
            break
        # taken anew for each tile: memory whose array is not used again is freed at once
        laid = -(-room.ctypes.data // LINE) * LINE
        found = laid + steps * STEP
        first = tile * OUTPUTS
        count = min(OUTPUTS, o - first)
        if lies and count == OUTPUTS:
            left = words[W] + 2 * first * i
            _sum(words, left, 2 * SIDE * i, LINE, 2 * i, found, sums.ctypes.data)
        else:
            _lay(words, first, count, laid)
            _sum(words, laid, SIDE * LINE, STEP, LINE, found, sums.ctypes.data)
        if count == OUTPUTS:
            _write(words, first, sums, zeros)
        else:
            write(words, first, count, sums)
    release()


MULTIPLY_IN_UNIT = Kernel(_multiply)
