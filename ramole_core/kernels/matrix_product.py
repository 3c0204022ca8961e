"""The product of `product` by the CPU's matrix unit, of a weight in NF4 or bfloat16.

A tile is 32 outputs: their weights are laid out as bfloat16 once (or read where they lie, where
they are that) and met by 32 rows of x at a time. A y[m, j] is one sum of the unit's.
"""

import numpy as np

from ramole_core.kernels.compiled import kernel
from ramole_core.kernels.matrix_input import STEP, halves_of_codes, lay_row
from ramole_core.kernels.matrix_unit import (
    DEPTH,
    SIDE,
    lay_out,
    layouts,
    meet_one,
    meet_two,
    release,
    turn,
)
from ramole_core.kernels.outputs import (
    CODES,
    HALVES,
    KIND,
    LAYOUTS,
    SCALES,
    TILE,
    I,
    M,
    O,
    W,
    X,
    write,
)
from ramole_core.kernels.team import TILES, Kernel, floats, take, words_at
from ramole_core.kernels.widen import BLOCK

OUTPUTS = 2 * SIDE
"""Outputs of a tile."""
LINE = 64
"""Bytes of a cache line, and of a row of a left tile."""
SQUARE = 4 * SIDE * SIDE
"""Bytes of a tile of sums."""
HOW_LAID = layouts()
"""For each number of columns, what the unit is told; its address is a word of the call."""


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
def _sum(words, left, left_next, left_step, left_row, found, sums, most):
    """sums[a, m, :] of all rows of x, from two left tiles a depth."""
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
            meet_two(left, left_next, left_step, left_row, steps, right, last, row, found)
        else:
            row = 4 * columns
            meet_one(left, left_next, left_step, left_row, steps, right, right, row, found)
        tiles = 2 if here > SIDE else 1
        for a in range(2):
            for b in range(tiles):
                out = sums + 4 * TILE * (a * most + start + b * SIDE)
                turn(found + SQUARE * (tiles * a + b), 4 * SIDE, out, 4 * TILE)


def _multiply(pointer):
    words = words_at(pointer)
    m, i, o = words[M], words[I], words[O]
    steps = -(-i // DEPTH)
    room = np.zeros(steps * STEP + 4 * SQUARE + LINE, np.uint8)
    laid = -(-room.ctypes.data // LINE) * LINE
    found = laid + steps * STEP
    most = -(-m // SIDE) * SIDE
    sums = np.empty((2, most, TILE), np.float32)
    lies = words[KIND] == HALVES and i % DEPTH == 0
    while True:
        tile = take(pointer)
        if tile >= words[TILES]:
            break
        first = tile * OUTPUTS
        count = min(OUTPUTS, o - first)
        if lies and count == OUTPUTS:
            left = words[W] + 2 * first * i
            _sum(words, left, 2 * SIDE * i, LINE, 2 * i, found, sums.ctypes.data, most)
        else:
            _lay(words, first, count, laid)
            _sum(words, laid, SIDE * LINE, STEP, LINE, found, sums.ctypes.data, most)
        for a in range(2):
            if count > a * TILE:
                write(words, first + a * TILE, min(TILE, count - a * TILE), sums[a])
    release()


MULTIPLY_IN_UNIT = Kernel(_multiply)
