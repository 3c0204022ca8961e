"""A weight's and an input's rows as the matrix unit reads them, in bfloat16.

A left tile is SIDE rows of DEPTH numbers as they stand. A right tile holds the same of up to SIDE
rows of x, turned: a row of it is one pair of neighbouring numbers of each.

4-bit weights are laid out in another order within each BLOCK, and x with them (`ordered`): a word
of the codes holds four neighbours, so a vector that holds a block's words twice becomes 32 weights
by one shift and one look into a register. Those at places 0 and 1 of each four come first.
"""

import numpy as np
import torch
from llvmlite import ir
from numba import types
from torch import Tensor

from ramole_core.kernels.call_args import TILES, WORDS, halves, ints, prefetch_at, take, words_at
from ramole_core.kernels.compiled import instructions, kernel
from ramole_core.kernels.matrix_unit import DEPTH, SIDE, turn
from ramole_core.kernels.outputs import CODES, GRID
from ramole_core.kernels.team import Kernel
from ramole_core.kernels.vectors import (
    FLOAT,
    VECTOR,
    Bfloat,
    accumulate,
    call_llvm,
    fma,
    load,
    moved,
    places,
    spread,
    store,
    word,
)
from ramole_core.kernels.widen import BLOCK, GRID_BYTES, NF4, grid_of

OUTPUTS = 2 * SIDE
"""Outputs of a tile."""
LINE = 64
"""Bytes of a cache line, and of a row of a left tile."""
STEP = OUTPUTS * LINE
"""Bytes of two left tiles at one depth."""
AHEAD = 16384
"""Prefetch distance in bytes: what the caches hold of a few left tiles' codes."""
SCALE_BYTES = {CODES: 4, GRID: GRID_BYTES}
"""Of a block's scales."""
SHIFTS = (4, 0), (12, 8)
"""The bits at which the codes of a block's first and second vector lie in their words."""
NUMBERS = ir.VectorType(ir.IntType(16), DEPTH)
"""The bits of DEPTH bfloat16 numbers."""


def _bits(numbers) -> ir.Constant:
    kind = ir.IntType(16)
    numbers = [ir.Constant(kind, n) for n in numbers]
    return ir.Constant(ir.VectorType(kind, len(numbers)), numbers)


def _table(builder, kind: int, scales):
    """The numbers of NF4's codes twice, or of int4's for both groups of the block, in bfloat16;
    rounded before they are looked up, not each weight after it."""
    if kind == CODES:
        numbers = ir.Constant(VECTOR, [ir.Constant(FLOAT, float(np.float32(n))) for n in NF4])
        first = last = builder.fmul(numbers, spread(builder, load(builder, scales, FLOAT)))
    else:
        codes = ir.Constant(VECTOR, [ir.Constant(FLOAT, float(n)) for n in range(SIDE)])
        first, last = (fma(builder, codes, *grid_of(builder, scales, n)) for n in (0, 1))
    name, found = "x86.avx512bf16.cvtne2ps2bf16.512", ir.VectorType(Bfloat(), DEPTH)
    return builder.bitcast(call_llvm(builder, name, found, [last, first]), NUMBERS)


def _lay_of(kind: int):
    """Build the layout of a row of 4-bit weights of this kind."""
    group = _bits(([0] * (SIDE // 2) + [SIDE] * (SIDE // 2)) * 2)

    @instructions
    def lay(context, codes, scales, blocks, out, depth):
        """`blocks` blocks as a row of left tiles: addresses, and bytes from depth to depth."""

        def build(context, builder, signature, args):
            codes, scales, blocks, out, depth = args

            def one(at, _):
                place = moved(builder, codes, at, BLOCK // 2)
                prefetch_at(builder, builder.add(place, word(AHEAD)))
                words = load(builder, place, ir.VectorType(ir.IntType(16), SIDE), align=1)
                twice = builder.shuffle_vector(words, words, places([*range(SIDE)] * 2))
                table = _table(builder, kind, moved(builder, scales, at, SCALE_BYTES[kind]))
                there = moved(builder, out, at, depth, BLOCK // DEPTH)
                for first, second in SHIFTS:
                    index = builder.lshr(twice, _bits([first] * SIDE + [second] * SIDE))
                    if kind == GRID:  # the fifth bit says which group; of NF4's it may be any
                        index = builder.or_(builder.and_(index, _bits([15] * DEPTH)), group)
                    name = "x86.avx512.permvar.hi.512"
                    store(builder, call_llvm(builder, name, NUMBERS, [table, index]), there)
                    there = builder.add(there, depth)
                return []

            accumulate(builder, blocks, 1, [], one)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 5), build

    return lay


lay_codes, lay_grid = _lay_of(CODES), _lay_of(GRID)


@kernel()
def lay_row(source, n, out):
    """A row of n bfloat16 numbers as a row of left tiles; addresses. What is behind it stays."""
    bits = halves(source, 1, n)[0]
    for at in range(0, n, DEPTH):
        place = halves(out + at // DEPTH * STEP, 1, DEPTH)[0]
        for d in range(min(DEPTH, n - at)):
            place[d] = bits[at + d]


# --- inputs ---------------------------------------------------------------------------------

N, I, X, OUT, PAIRS, ORDERED = range(2, 8)
"""The words of a call, behind the two of every call."""


def pairs_of(i: int) -> int:
    """Pairs of a row of i numbers, zeros behind the last included."""
    return -(-i // DEPTH) * SIDE


@instructions
def _order_block(context, source, out):
    """BLOCK numbers in the order in which 4-bit weights are laid out."""

    def build(context, builder, signature, args):
        source, out = args
        halves = [builder.add(source, word(2 * DEPTH * n)) for n in (0, 1)]
        both = [load(builder, place, NUMBERS, align=2) for place in halves]
        for n in (0, 1):
            order = places([*range(2 * n, BLOCK, 4), *range(2 * n + 1, BLOCK, 4)])
            found = builder.shuffle_vector(*both, order)
            store(builder, found, builder.add(out, word(2 * DEPTH * n)), align=2)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), build


@kernel()
def _order(source, count, out):
    """`count` numbers, in whole blocks, in that order; addresses."""
    for n in range(count // BLOCK):
        _order_block(source + 2 * BLOCK * n, out + 2 * BLOCK * n)


def _turn_rows(address):
    words = words_at(address)
    n, i, pairs = words[N], words[I], words[PAIRS]
    ordered = np.empty((SIDE if words[ORDERED] else 0, i), np.uint16)
    whole = i // DEPTH * SIDE
    while True:
        tile = take(address)
        if tile >= words[TILES]:
            return
        first = tile * SIDE
        count = min(SIDE, n - first)
        x, out = words[X] + 2 * first * i, words[OUT] + 4 * first * pairs
        if words[ORDERED]:
            _order(x, count * i, out if n == 1 else ordered.ctypes.data)
            if n == 1:
                continue
            x = ordered.ctypes.data
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


def turned(x: Tensor, *, ordered: bool) -> Tensor:
    """x [N, i] of bfloat16, contiguous, as right tiles: int32 [N * pairs_of(i)]; those of SIDE rows
    lie one behind the other, and fewer rows at the end make narrower ones. `ordered`: as the codes
    of 4 bits are laid (i in whole blocks)."""
    n, i = x.shape
    if n == 1 and i % DEPTH == 0 and not ordered:
        return x.view(torch.int32).view(-1)
    found = torch.empty(n * pairs_of(i), dtype=torch.int32)
    words = np.zeros(WORDS, np.int64)
    words[N], words[I], words[X] = n, i, x.data_ptr()
    words[OUT], words[PAIRS], words[ORDERED] = found.data_ptr(), pairs_of(i), ordered
    TURN.run(words, -(-n // SIDE))
    return found
