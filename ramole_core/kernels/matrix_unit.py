"""The CPU's matrix unit (Intel's AMX): products of 16 by 16 rows, 32 bfloat16 numbers of each at
once, summed in float32.

A number's sum has one order, whatever the other rows and columns of its tiles hold and however many
they are; so how much of a tile is used changes the speed and not one bit.
"""

import ctypes
import os
import sys
from collections.abc import Callable

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import types

from ramole_core.kernels.call_args import bytes_at
from ramole_core.kernels.compiled import instructions, kernel
from ramole_core.kernels.vectors import (
    LANES,
    Bfloat,
    accumulate,
    call_llvm,
    load,
    moved,
    places,
    store,
    word,
)

SIDE = 16
"""Rows of a tile."""
DEPTH = 32
"""bfloat16 numbers of a row of a tile."""
SQUARE = 4 * SIDE * SIDE
"""Bytes of a tile of sums."""
_ARCH_PRCTL, _REQUEST, _TILE_DATA = 158, 0x1023, 18
"""The system call by which a process asks for the unit; Linux on x86-64."""


def _granted() -> bool:
    """Whether this process may use a matrix unit; RAMOLE_MATRIX=0 turns it off, for tests."""
    features = llvm.get_host_cpu_features()
    if LANES < SIDE or os.environ.get("RAMOLE_MATRIX") == "0" or sys.platform != "linux":
        return False
    if not all(features.get(name) for name in ("amx-tile", "amx-bf16", "avx512bf16")):
        return False
    return ctypes.CDLL(None).syscall(_ARCH_PRCTL, _REQUEST, _TILE_DATA) == 0


MATRIX = _granted()
BYTE = ir.IntType(8)
ADDRESS = BYTE.as_pointer()
SUMS, LEFT, RIGHT = (0, 2), 4, 6
"""The unit's eight registers: sums of the first and the second left tile, left and right tiles."""


def layouts() -> np.ndarray:
    """[17, 64] bytes: the tile configuration for each number of columns n of the last right
    tile."""
    found = np.zeros((SIDE + 1, 64), np.uint8)
    for n in range(1, SIDE + 1):
        found[n, 0] = 1
        for tile, count in enumerate([SIDE, n, SIDE, n, SIDE, SIDE, SIDE, n]):
            found[n, 16 + 2 * tile] = 4 * count  # bytes of a row
            found[n, 48 + tile] = SIDE
    return found


def call_unit(builder, name: str, *arguments) -> None:
    """One of the unit's instructions: tiles by their numbers, an address, bytes from row to row."""
    found = []
    for one in arguments:
        if isinstance(one, int):
            one = ir.Constant(BYTE, one)
        elif ADDRESS not in [other.type for other in found]:
            one = builder.inttoptr(one, ADDRESS)
        found.append(one)
    call_llvm(builder, f"x86.{name}", ir.VoidType(), found)


@instructions
def lay_out(context, layout):
    """Configure the tile sizes; `layout` is the address of a row of `layouts`."""

    def build(context, builder, signature, args):
        call_unit(builder, "ldtilecfg", args[0])
        return context.get_dummy_value()

    return types.void(types.int64), build


@instructions
def keep_layout(context, layout):
    """Write the configuration of this thread's tiles to an address; of 64 bytes, all zero where
    there is none."""

    def build(context, builder, signature, args):
        call_unit(builder, "sttilecfg", args[0])
        return context.get_dummy_value()

    return types.void(types.int64), build


@instructions
def _release(context):
    """Release the unit's tiles: other code expects them empty."""

    def build(context, builder, signature, args):
        call_unit(builder, "tilerelease")
        return context.get_dummy_value()

    return types.void(), build


@kernel()
def restore_layout(layout):
    """Configure the tiles as `keep_layout` found them: another library may have configured this
    thread's once for all its calls, as llama.cpp does."""
    if bytes_at(layout, 1, 1)[0, 0]:
        lay_out(layout)
    else:
        _release()


@instructions
def zero_sums(context):
    """Set the sums of both left tiles to zero."""

    def build(context, builder, signature, args):
        for n in SUMS:
            for b in (0, 1):
                call_unit(builder, "tilezero", n + b)
        return context.get_dummy_value()

    return types.void(), build


def _add_of(rights: int, lefts: tuple[int, ...] = (0, 1)) -> Callable[..., int]:
    """Build the sums' step over some depths of the left tiles `lefts` and one or two right ones."""

    @instructions
    def add(context, left, left_next, left_step, left_row, steps, right, last, last_row):
        """sums[a, b] += left a times right b, SIDE x SIDE float32 each.

        Addresses, and steps in bytes: from one left tile to the other, from one depth to the next,
        from row to row. The first of two right tiles is full; the last has rows of `last_row`
        bytes, SIDE of them a depth.
        """

        def build(context, builder, signature, args):
            left, left_next, left_step, left_row, steps, right, last, last_row = args
            tiles = [(right, word(4 * SIDE)), (last, last_row)][2 - rights :]
            first = RIGHT + 2 - rights

            def add(at, _):
                here = moved(builder, left, at, left_step)
                for a in lefts:
                    call_unit(builder, "tileloadd64", LEFT + a, here, left_row)
                    here = builder.add(here, left_next)
                for b, (address, row) in enumerate(tiles):
                    place = moved(builder, address, at, row, SIDE)
                    call_unit(builder, "tileloadd64", first + b, place, row)
                for a in lefts:
                    for b in range(rights):
                        numbers = (SUMS[a] + 2 - rights + b, LEFT + a, first + b)
                        call_unit(builder, "tdpbf16ps", *numbers)
                return []

            accumulate(builder, steps, 1, [], add)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 8), build

    return add


add_one, add_two = _add_of(1), _add_of(2)
add_half = [[_add_of(rights, (a,)) for a in (0, 1)] for rights in (1, 2)]
"""By right tiles, and of the first or the second left tile alone."""


def _store_of(rights: int) -> Callable[..., int]:
    @instructions
    def store_sums(context, out, row):
        """out[a, b] = sums[a, b], a before b; an address, and bytes from row to row."""

        def build(context, builder, signature, args):
            sums = [SUMS[a] + b for a in (0, 1) for b in range(2 - rights, 2)]
            for place, n in enumerate(sums):
                where = moved(builder, args[0], args[1], SIDE * place)
                call_unit(builder, "tilestored64", n, where, args[1])
            return context.get_dummy_value()

        return types.void(types.int64, types.int64), build

    return store_sums


store_one, store_two = _store_of(1), _store_of(2)


@instructions
def turn(context, source, source_row, out, out_row):
    """out[n, m] = source[m, n], SIDE x SIDE words of 4 bytes; rows in bytes."""

    def build(context, builder, signature, args):
        source, source_row, out, out_row = args

        rows = [load(builder, moved(builder, source, source_row, m)) for m in range(SIDE)]
        for d in (8, 4, 2, 1):  # squares of d by d change places
            front = places([n if not n & d else SIDE + n - d for n in range(SIDE)])
            back = places([n + d if not n & d else SIDE + n for n in range(SIDE)])
            for m in range(SIDE):
                if not m & d:
                    one, other = rows[m], rows[m + d]
                    rows[m] = builder.shuffle_vector(one, other, front)
                    rows[m + d] = builder.shuffle_vector(one, other, back)
        for n, row in enumerate(rows):
            store(builder, row, moved(builder, out, out_row, n))
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4), build


def rounded(builder, vector):
    """16 float32 as 16 bfloat16's bits, to the nearest, ties to even."""
    name = "x86.avx512bf16.cvtneps2bf16.512"
    found = call_llvm(builder, name, ir.VectorType(Bfloat(), SIDE), [vector])
    return builder.bitcast(found, ir.VectorType(ir.IntType(16), SIDE))


@instructions
def round_rows(context, sums, sums_row, count, bias, out, out_row):
    """out[:count] = `count` rows of SIDE float32 plus a row of bias, in bfloat16; addresses, rows
    in bytes."""

    def build(context, builder, signature, args):
        sums, sums_row, count, bias, out, out_row = args
        more = load(builder, bias)

        def one(at, _):
            row = load(builder, moved(builder, sums, at, sums_row))
            half = rounded(builder, builder.fadd(row, more))
            store(builder, half, moved(builder, out, at, out_row), align=2)
            return []

        accumulate(builder, count, 1, [], one)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 6), build
