"""The updates u B by the CPU's matrix unit, of pages of B at any places.

OUTPUTS columns of DEPTH pages are laid out as two right tiles. Units are two left tiles of
bfloat16: rounded, and what rounding left (`split_units`), so that 2^-16 of each is lost at most.
Each of these columns of y is summed by the unit in one order, however many tokens there are.
"""

from collections.abc import Callable

import numpy as np
from llvmlite import ir
from numba import types

from ramole_core.kernels.call_args import floats, longs
from ramole_core.kernels.compiled import copy_row, fill, instructions, kernel
from ramole_core.kernels.matrix_input import LINE, NUMBERS, OUTPUTS
from ramole_core.kernels.matrix_unit import (
    DEPTH,
    LEFT,
    MATRIX,
    RIGHT,
    SIDE,
    SQUARE,
    SUMS,
    call_unit,
    rounded,
)
from ramole_core.kernels.outputs import MIN_COPIED_ROWS
from ramole_core.kernels.vectors import VECTOR, accumulate, load, moved, places, store, word

NOT_SIGNS = 0x7FFF_7FFF_7FFF_7FFF
"""The bits of four bfloat16 numbers but for their signs."""


@kernel()
def update_room_of(R):
    """Bytes that `add_pages_of` needs for up to R pages: zeros, two tiles of sums, right tiles."""
    return 2 * LINE + 2 * SQUARE * (1 + -(-R // DEPTH))


@instructions
def _split(context, units, out, rest):
    """SIDE float32 as bfloat16, and what is left of each; addresses."""

    def build(context, builder, signature, args):
        if not MATRIX:  # the kernel that weighs units is compiled on every CPU
            return context.get_dummy_value()
        units, out, rest = args
        whole = load(builder, units)
        near = rounded(builder, whole)
        wide = builder.zext(near, ir.VectorType(ir.IntType(32), SIDE))
        wide = builder.bitcast(builder.shl(wide, places([16] * SIDE)), VECTOR)
        store(builder, near, out, align=2)
        store(builder, rounded(builder, builder.fsub(whole, wide)), rest, align=2)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 3), build


@kernel()
def split_units(units, R, out):
    """A token's units [R] as bfloat16, and behind them what is left of each; 0 up to the end of a
    row of `units` or `out`, which are in whole depths."""
    width = len(units)
    for c in range(R, width):
        units[c] = np.float32(0)
    for c in range(0, width, SIDE):
        place = out + 2 * c
        _split(units.ctypes.data + 4 * c, place, place + 2 * width)


@instructions
def _lay_pair(context, one, other, out):
    """OUTPUTS columns of two pages as a row of two right tiles; addresses."""

    def build(context, builder, signature, args):
        one, other, out = args
        both = [load(builder, place, NUMBERS, align=2) for place in (one, other)]
        for half in (0, SIDE):
            order = [at for n in range(half, half + SIDE) for at in (n, DEPTH + n)]
            row = builder.shuffle_vector(*both, places(order))
            store(builder, row, builder.add(out, word(half // SIDE * SQUARE)), align=2)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 3), build


@kernel()
def lay_pages(B, pages, R, step, zeros, out):
    """OUTPUTS columns of up to DEPTH pages as two right tiles; `B`: the address of the columns in
    the first page, `step` bytes from page to page."""
    for c in range(0, DEPTH, 2):
        one = B + step * np.int64(pages[c]) if c < R else zeros
        other = B + step * np.int64(pages[c + 1]) if c + 1 < R else zeros
        _lay_pair(one, other, out + 2 * LINE // 4 * c)


def _moving_sums(instruction: str) -> Callable[..., int]:
    """A kernel's function that moves sums [SIDE, OUTPUTS] by an instruction of the unit; it takes
    an address, and bytes from row to row."""

    @instructions
    def move_sums(context, sums, row):
        def build(context, builder, signature, args):
            for n, tile in enumerate(SUMS):
                call_unit(builder, instruction, tile, builder.add(args[0], word(LINE * n)), args[1])
            return context.get_dummy_value()

        return types.void(types.int64, types.int64), build

    return move_sums


load_sums, keep_sums = _moving_sums("tileloadd64"), _moving_sums("tilestored64")


@instructions
def add_pages(context, units, rest, row, pages, steps):
    """sums [SIDE, OUTPUTS] += the units times the columns of `steps` times DEPTH pages; addresses
    of left and right tiles, and bytes from token to token."""

    def build(context, builder, signature, args):
        units, rest, row, pages, steps = args

        def one(at, _):
            for n, place in enumerate((units, rest)):
                call_unit(builder, "tileloadd64", LEFT + n, moved(builder, place, at, LINE), row)
            for half, tile in enumerate(SUMS):
                place = moved(builder, builder.add(pages, word(SQUARE * half)), at, 2 * SQUARE)
                call_unit(builder, "tileloadd64", RIGHT, place, word(LINE))
                for n in (0, 1):
                    call_unit(builder, "tdpbf16ps", tile, LEFT + n, RIGHT)
            return []

        accumulate(builder, steps, 1, [], one)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 5), build


@kernel()
def _any(units, width, tokens):
    """Whether one of DEPTH units of some tokens, as bfloat16 a row of 2 * `width`, is not 0."""
    for n in range(tokens):
        four = longs(units + 4 * width * n, 1, DEPTH // 4)[0]
        for each in four:
            if each & NOT_SIGNS:
                return True
    return False


@kernel()
def add_pages_of(B, pages, R, step, units, width, tokens, sums, room):
    """sums [tokens, OUTPUTS] += units B of the tokens of one request, as `split_units` leaves them.

    `B`: as in `lay_pages`; `units` and `sums` have SIDE - 1 rows behind those of the tokens;
    `room`: `update_room_of` bytes.
    """
    zeros = -(-room // LINE) * LINE
    fill(floats(zeros, 1, LINE // 4), 1, LINE // 4, 0)
    few = zeros + LINE
    laid = few + 2 * SQUARE
    row, blocks = 4 * width, -(-R // DEPTH)
    sparse = tokens < MIN_COPIED_ROWS and blocks > 1
    if sparse:
        load_sums(sums, 4 * OUTPUTS)
    for block in range(blocks):
        first = DEPTH * block
        at = units + 2 * first
        if sparse and not _any(at, width, tokens):
            continue  # adds 0
        out = laid if sparse else laid + 2 * SQUARE * block
        lay_pages(B, pages[first:], R - first, step, zeros, out)
        if sparse:
            add_pages(at, at + 2 * width, row, out, 1)
    for start in range(0, tokens, SIDE):
        here, at = sums + 4 * OUTPUTS * start, units + row * start
        if not sparse:
            load_sums(here, 4 * OUTPUTS)
            add_pages(at, at + 2 * width, row, laid, blocks)
        if tokens - start >= SIDE:
            keep_sums(here, 4 * OUTPUTS)
        else:  # what lies behind is of other requests
            keep_sums(few, 4 * OUTPUTS)
            size = OUTPUTS * (tokens - start)
            copy_row(floats(here, 1, size)[0], floats(few, 1, size)[0], size)
