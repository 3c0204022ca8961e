"""out[m, j] = sum_n x[m, n] w[j, n] of bfloat16 numbers, two products an instruction and lane.

The CPU multiplies bfloat16 without widening it (AVX512_BF16) and sums in float32: twice the numbers
of an `fma`. Each out has an accumulator of its own, filled and summed in the same order whatever
the other rows are, so how many are taken at once changes the speed and not one bit.
"""

import os

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import types

from ramole_core.kernels.call_args import prefetch_at
from ramole_core.kernels.compiled import instructions, kernel
from ramole_core.kernels.dots import Turn, products_of
from ramole_core.kernels.outputs import CODES, GRID, HALVES
from ramole_core.kernels.vectors import (
    FLOAT,
    LANES,
    VECTOR,
    Bfloat,
    call_llvm,
    load,
    places,
    spread,
    store,
    word,
    zero,
)
from ramole_core.kernels.widen import (
    BLOCK,
    GRID_BYTES,
    GROUP,
    split_codes,
    table_of,
)

DEPTH = 32
"""bfloat16 numbers of a vector."""


_FEATURES = llvm.get_host_cpu_features()
SUPPORTED = 2 * LANES == DEPTH and all(map(_FEATURES.get, ("avx512bf16", "avx512bw")))
"""Whether the CPU has the instruction."""
MULTIPLIES = SUPPORTED and os.environ.get("RAMOLE_HALVES") != "0"
"""Whether products of weights may use it; RAMOLE_HALVES=0 turns that off, to compare."""
NUMBERS = ir.VectorType(ir.IntType(16), DEPTH)
"""The bits of DEPTH bfloat16 numbers."""


HALVES_OF = ir.VectorType(Bfloat(), DEPTH)


def _add_products(builder, total, x, w):
    """total + the products of two vectors, neighbours together."""
    halves = [builder.bitcast(numbers, HALVES_OF) for numbers in (x, w)]
    return call_llvm(builder, "x86.avx512bf16.dpbf16ps.512", VECTOR, [total, *halves])


def _grid(builder, address, n: int):
    """The sixteen numbers of a block's n-th GROUP in int4: code x step + 1 x least number, which
    are the pair of products that the instruction adds."""
    one = int(np.float32(1).view(np.uint32)) >> 16
    pairs = [one << 16 | int(np.float32(code).view(np.uint32)) >> 16 for code in range(LANES)]
    codes = builder.bitcast(places(pairs), NUMBERS)
    both = load(builder, builder.add(address, word(4 * n)), ir.IntType(32), align=2)
    both = builder.bitcast(both, FLOAT)
    return _add_products(builder, zero(), codes, builder.bitcast(spread(builder, both), NUMBERS))


def _table(builder, kind: int, address):
    """The numbers of a block whose scales lie there, rounded to bfloat16: sixteen for each half."""
    if kind == CODES:
        scale = load(builder, address, FLOAT)
        first = last = table_of(builder, spread(builder, scale))[0]
    else:
        first, last = (_grid(builder, address, n) for n in range(BLOCK // GROUP))
    name = "x86.avx512bf16.cvtne2ps2bf16.512"
    return builder.bitcast(call_llvm(builder, name, HALVES_OF, [last, first]), NUMBERS)


def _codes(builder, kind: int, address, table, part: int):
    """DEPTH weights of a half of a block from DEPTH / 2 bytes."""
    even, odd = split_codes(builder, address, alone=kind == GRID)  # NF4's table is there twice
    at = builder.or_(even, builder.shl(odd, places([16] * LANES)))
    if part and kind == GRID:
        at = builder.or_(at, places([LANES << 16 | LANES] * LANES))
    at = builder.bitcast(at, NUMBERS)
    return call_llvm(builder, "x86.avx512.permvar.hi.512", NUMBERS, [table, at])


SHIFT = {CODES: 5, GRID: 4}
"""How often the bytes of x are halved for those of the same block's scales."""


def _products_of(kind: int):
    """`products_of` weights of this kind; empty, and never called, on other CPUs."""
    in_blocks = kind != HALVES
    step = BLOCK if in_blocks else DEPTH

    def table(builder, address, at):
        return _table(builder, kind, builder.add(address, builder.lshr(at, word(SHIFT[kind]))))

    def add(builder, at, xs, ws, scales, ahead, sums):
        tables = [table(builder, s, at) for s in scales] if in_blocks else []
        for part in range(step // DEPTH):
            weights = []
            for j, w in enumerate(ws):
                place = builder.add(w, builder.lshr(at, word(2)) if in_blocks else at)
                if part == 0:
                    prefetch_at(builder, builder.add(place, ahead))
                if in_blocks:
                    place = builder.add(place, word(LANES * part))
                    weights.append(_codes(builder, kind, place, tables[j], part))
                else:
                    weights.append(load(builder, place, NUMBERS, align=2))
            inputs = [builder.add(builder.add(x, at), word(2 * DEPTH * part)) for x in xs]
            numbers = [load(builder, place, NUMBERS, align=2) for place in inputs]
            sums = [
                [
                    _add_products(builder, total, number, weight)
                    for total, weight in zip(row, weights, strict=True)
                ]
                for row, number in zip(sums, numbers, strict=True)
            ]
        return sums

    many = (4, 2, 1) if in_blocks else (6, 4, 2, 1)
    return products_of(Turn(2, step, add), many, there=SUPPORTED)


half_dots, half_dots_of_codes, half_dots_of_grid = map(_products_of, (HALVES, CODES, GRID))
"""By the kind of weights: bfloat16 (n in whole vectors), NF4 with their scales, int4 with their
steps and least numbers (n in whole blocks); x is bfloat16, out float32."""


def _narrow_block_of(kind: int):
    """The numbers of a block, in bfloat16."""

    @instructions
    def narrow(context, codes, scales, out):
        def build(context, builder, signature, args):
            table = _table(builder, kind, args[1]) if SUPPORTED else None
            for part in range(BLOCK // DEPTH if SUPPORTED else 0):
                place = builder.add(args[0], word(LANES * part))
                found = _codes(builder, kind, place, table, part)
                store(builder, found, builder.add(args[2], word(2 * DEPTH * part)), align=2)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 3), build

    return narrow


_narrow_codes, _narrow_grid = (_narrow_block_of(kind) for kind in (CODES, GRID))


@kernel()
def narrow_codes(codes, scales, n, out):
    """out [n] bfloat16 from a row of n weights in NF4, in whole blocks; addresses."""
    for block in range(n // BLOCK):
        _narrow_codes(codes + block * (BLOCK // 2), scales + 4 * block, out + 2 * block * BLOCK)


@kernel()
def narrow_grid(codes, grid, n, out):
    """`narrow_codes` for int4."""
    for block in range(n // BLOCK):
        place = grid + GRID_BYTES * block
        _narrow_grid(codes + block * (BLOCK // 2), place, out + 2 * block * BLOCK)
