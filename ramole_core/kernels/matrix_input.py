"""A weight's and an input's rows as the matrix unit reads them, in bfloat16.

A left tile is SIDE rows of DEPTH numbers as they stand. A right tile holds the same of up to SIDE
rows of x, turned: a row of it is one pair of neighbouring numbers of each.
"""

import numpy as np
import torch
from llvmlite import ir
from numba import types
from torch import Tensor

from ramole_core.kernels.call_args import TILES, WORDS, halves, ints, take, words_at
from ramole_core.kernels.compiled import instructions, kernel
from ramole_core.kernels.matrix_unit import DEPTH, SIDE, rounded, turn
from ramole_core.kernels.team import Kernel
from ramole_core.kernels.vectors import (
    FLOAT,
    VECTOR,
    call_llvm,
    load,
    places,
    spread,
    store,
    word,
)
from ramole_core.kernels.widen import BLOCK, NF4

STEP = 2 * SIDE * DEPTH * 2
"""Bytes of two left tiles at one depth."""


@instructions
def _halves_of_block(context, codes, scale, out):
    """BLOCK weights of one row from BLOCK / 2 bytes, to two depths of left tiles.

    The sixteen numbers times the scale are rounded first, so a weight is one look into a register:
    a pair's indices are the byte's high half and its low five bits, of which the fifth picks one of
    two equal copies.
    """

    def build(context, builder, signature, args):
        codes, scale, out = args
        numbers = [ir.Constant(FLOAT, float(np.float32(n))) for n in NF4]
        scaled = builder.fmul(ir.Constant(VECTOR, numbers), spread(builder, scale))
        half = rounded(builder, scaled)
        table = builder.shuffle_vector(half, half, places([*range(SIDE)] * 2))
        look_up = "x86.avx512.permvar.hi.512"
        lying, pairs = (ir.VectorType(ir.IntType(bits), SIDE) for bits in (8, 32))
        for depth in range(BLOCK // DEPTH):
            place = builder.add(codes, word(SIDE * depth))
            both = builder.zext(load(builder, place, lying, align=1), pairs)
            high, low = (builder.lshr, 4), (builder.shl, 16)
            first, second = (way(both, places([by] * SIDE)) for way, by in (high, low))
            at = builder.bitcast(builder.or_(first, second), table.type)
            found = call_llvm(builder, look_up, table.type, [table, at])
            store(builder, found, builder.add(out, word(STEP * depth)))
        return context.get_dummy_value()

    return types.void(types.int64, types.float32, types.int64), build


@kernel()
def halves_of_codes(codes, scales, blocks, out):
    """A row of so many blocks of NF4 as a row of left tiles; addresses, scales as an array."""
    for n in range(blocks):
        _halves_of_block(codes + n * BLOCK // 2, scales[n], out + n * (BLOCK // DEPTH) * STEP)


@kernel()
def lay_row(source, n, out):
    """A row of n bfloat16 numbers as a row of left tiles; addresses. What is behind it stays."""
    bits = halves(source, 1, n)[0]
    for at in range(0, n, DEPTH):
        place = halves(out + at // DEPTH * STEP, 1, DEPTH)[0]
        for d in range(min(DEPTH, n - at)):
            place[d] = bits[at + d]


# --- inputs ---------------------------------------------------------------------------------

N, I, X, OUT, PAIRS = range(2, 7)
"""The words of a call, behind the two of every call."""


def pairs_of(i: int) -> int:
    """Pairs of a row of i numbers, zeros behind the last included."""
    return -(-i // DEPTH) * SIDE


def _turn_rows(address):
    words = words_at(address)
    n, i, pairs = words[N], words[I], words[PAIRS]
    whole = i // DEPTH * SIDE
    while True:
        tile = take(address)
        if tile >= words[TILES]:
            return
        first = tile * SIDE
        count = min(SIDE, n - first)
        x, out = words[X] + 2 * first * i, words[OUT] + 4 * first * pairs
        if count == SIDE:
            for p in range(0, whole, SIDE):
                turn(x + 4 * p, 2 * i, out + 4 * SIDE * p, 4 * SIDE)
        found = ints(out, pairs, count)
        if count < SIDE:
            for m in range(count):
                row = ints(x + 2 * m * i, 1, i // 2)[0]
                for p in range(whole):
                    found[p, m] = row[p]
        for m in range(count if whole < pairs else 0):
            row = halves(x + 2 * m * i, 1, i)[0]
            for p in range(whole, pairs):
                low = np.int32(row[2 * p]) if 2 * p < i else np.int32(0)
                high = np.int32(row[2 * p + 1]) if 2 * p + 1 < i else np.int32(0)
                found[p, m] = low | (high << np.int32(16))


TURN = Kernel(_turn_rows)


def turned(x: Tensor) -> Tensor:
    """x [N, i] of bfloat16, contiguous, as right tiles: int32 [N * pairs_of(i)]; those of SIDE rows
    lie one behind the other, and fewer rows at the end make narrower ones."""
    n, i = x.shape
    found = torch.empty(n * pairs_of(i), dtype=torch.int32)
    if n == 1 and i % DEPTH == 0:
        return x.view(torch.int32).view(-1)
    words = np.zeros(WORDS, np.int64)
    words[N], words[I], words[X] = n, i, x.data_ptr()
    words[OUT], words[PAIRS] = found.data_ptr(), pairs_of(i)
    TURN.run(words, -(-n // SIDE))
    return found
