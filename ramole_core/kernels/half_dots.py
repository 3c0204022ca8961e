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

from ramole_core.kernels.call_args import ask_memory
from ramole_core.kernels.compiled import instructions, kernel
from ramole_core.kernels.dots import COLUMNS, sums_of
from ramole_core.kernels.outputs import CODES, GRID, HALVES
from ramole_core.kernels.vectors import (
    FLOAT,
    LANES,
    VECTOR,
    WORD,
    places,
    spread,
    word,
    zero,
)
from ramole_core.kernels.widen import (
    BLOCK,
    GRID_BYTES,
    GROUP,
    WORDS_OF,
    table_of,
)

DEPTH = 32
"""bfloat16 numbers of a vector."""


def _there() -> bool:
    """Whether the CPU has the instruction; RAMOLE_HALVES=0 turns it off, to compare."""
    features = llvm.get_host_cpu_features()
    wanted = ("avx512bf16", "avx512bw")
    return (
        2 * LANES == DEPTH
        and all(features.get(name) for name in wanted)
        and os.environ.get("RAMOLE_HALVES") != "0"
    )


MULTIPLIES = _there()
NUMBERS = ir.VectorType(ir.IntType(16), DEPTH)
"""The bits of DEPTH bfloat16 numbers."""


class _Half(ir.Type):
    """LLVM's bfloat, which llvmlite lacks."""

    def __str__(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Half)

    def __hash__(self) -> int:
        return hash(_Half)


HALVES_OF = ir.VectorType(_Half(), DEPTH)


def _call(builder, name: str, result, arguments):
    known = builder.module.globals.get(name)
    kind = ir.FunctionType(result, [one.type for one in arguments])
    return builder.call(known or ir.Function(builder.module, kind, name), arguments)


def _add_products(builder, total, x, w):
    """total + the products of two vectors, neighbours together."""
    halves = [builder.bitcast(numbers, HALVES_OF) for numbers in (x, w)]
    return _call(builder, "llvm.x86.avx512bf16.dpbf16ps.512", VECTOR, [total, *halves])


def _numbers(builder, address):
    """The vector that begins at an address."""
    return builder.load(builder.inttoptr(address, NUMBERS.as_pointer()), align=2)


def _grid(builder, address, n: int):
    """The sixteen numbers of a block's n-th GROUP in int4: code x step + 1 x least number, which
    are the pair of products that the instruction adds."""
    one = int(np.float32(1).view(np.uint32)) >> 16
    pairs = [one << 16 | int(np.float32(code).view(np.uint32)) >> 16 for code in range(LANES)]
    codes = builder.bitcast(places(pairs), NUMBERS)
    place = builder.inttoptr(builder.add(address, word(4 * n)), ir.IntType(32).as_pointer())
    both = builder.bitcast(builder.load(place, align=2), FLOAT)
    return _add_products(builder, zero(), codes, builder.bitcast(spread(builder, both), NUMBERS))


def _table(builder, kind: int, address):
    """The numbers of a block whose scales lie there, rounded to bfloat16: sixteen for each half."""
    if kind == CODES:
        scale = builder.load(builder.inttoptr(address, FLOAT.as_pointer()), align=4)
        first = last = table_of(builder, spread(builder, scale))[0]
    else:
        first, last = (_grid(builder, address, n) for n in range(BLOCK // GROUP))
    name = "llvm.x86.avx512bf16.cvtne2ps2bf16.512"
    return builder.bitcast(_call(builder, name, HALVES_OF, [last, first]), NUMBERS)


def _codes(builder, address, table, part: int):
    """DEPTH weights of a half of a block from DEPTH / 2 bytes: the even one is the high half of its
    byte."""
    kind = ir.VectorType(ir.IntType(8), LANES)
    both = builder.load(builder.inttoptr(address, kind.as_pointer()), align=1)
    both = builder.zext(both, WORDS_OF)
    even = builder.lshr(both, places([4] * LANES))
    odd = builder.shl(builder.and_(both, places([15] * LANES)), places([16] * LANES))
    at = builder.or_(even, odd)
    if part:
        at = builder.or_(at, places([LANES << 16 | LANES] * LANES))
    at = builder.bitcast(at, NUMBERS)
    return _call(builder, "llvm.x86.avx512.permvar.hi.512", NUMBERS, [table, at])


SHIFT = {CODES: 5, GRID: 4}
"""How often the bytes of x are halved for those of the same block's scales."""


def _dots_of(rows: int, kind: int):
    """Build `half_dots` for so many rows of x and four of w; empty, and never called, on other
    CPUs."""
    codes = kind != HALVES
    step = BLOCK if codes else DEPTH  # weights of a turn of the loop

    @instructions
    def dots(context, x, x_row, a, b, c, d, of_a, of_b, of_c, of_d, ahead, n, out, out_row):
        def build(context, builder, signature, args):
            if not MULTIPLIES:
                return context.get_dummy_value()
            x, x_row, *both, ahead, n, out, out_row = args
            ws, scales = both[:COLUMNS], both[COLUMNS:]
            start = builder.block
            loop, done = builder.append_basic_block("dots"), builder.append_basic_block("done")
            xs = [builder.add(x, builder.mul(x_row, word(2 * m))) for m in range(rows)]
            builder.branch(loop)
            builder.position_at_end(loop)
            at = builder.phi(WORD)  # bytes of x
            at.add_incoming(word(0), start)
            sums = [[builder.phi(VECTOR) for _ in ws] for _ in xs]
            new = [list(of_row) for of_row in sums]
            tables = []
            for address in scales if codes else ():
                place = builder.add(address, builder.lshr(at, word(SHIFT[kind])))
                tables.append(_table(builder, kind, place))
            for part in range(step // DEPTH):
                weights = []
                for j, address in enumerate(ws):
                    place = builder.add(address, builder.lshr(at, word(2)) if codes else at)
                    if part == 0:
                        ask_memory(builder, builder.add(place, ahead))
                    if codes:
                        place = builder.add(place, word(LANES * part))
                        weights.append(_codes(builder, place, tables[j], part))
                    else:
                        weights.append(_numbers(builder, place))
                for m, address in enumerate(xs):
                    place = builder.add(builder.add(address, at), word(2 * DEPTH * part))
                    numbers = _numbers(builder, place)
                    for j, weight in enumerate(weights):
                        new[m][j] = _add_products(builder, new[m][j], numbers, weight)
            onward = builder.add(at, word(2 * step))
            at.add_incoming(onward, loop)
            for before, after in zip(sums, new, strict=True):
                for one, other in zip(before, after, strict=True):
                    one.add_incoming(zero(), start)
                    one.add_incoming(other, loop)
            end = builder.mul(n, word(2))
            builder.cbranch(builder.icmp_signed("<", onward, end), loop, done)
            builder.position_at_end(done)
            for m, after in enumerate(new):
                place = builder.add(out, builder.mul(out_row, word(4 * m)))
                place = builder.inttoptr(place, ir.VectorType(FLOAT, COLUMNS).as_pointer())
                builder.store(sums_of(builder, after), place, align=4)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 14), build

    return dots


_dots1, _dots2, _dots4, _dots6 = (_dots_of(rows, HALVES) for rows in (1, 2, 4, 6))
_codes1, _codes2, _codes4 = (_dots_of(rows, CODES) for rows in (1, 2, 4))
_grid1, _grid2, _grid4 = (_dots_of(rows, GRID) for rows in (1, 2, 4))


@kernel()
def half_dots(x, x_row, m, a, b, c, d, ahead, n, out, out_row):
    """out[:m, :4] = x [m, n] times four rows of n; addresses of bfloat16 (out: float32), rows in
    numbers, n in whole vectors. What lies `ahead` bytes behind each weight is prefetched."""
    at = 0
    while at < m:
        here, there, left = x + 2 * at * x_row, out + 4 * at * out_row, m - at
        if left >= 6:
            _dots6(here, x_row, a, b, c, d, 0, 0, 0, 0, ahead, n, there, out_row)
            at += 6
        elif left >= 4:
            _dots4(here, x_row, a, b, c, d, 0, 0, 0, 0, ahead, n, there, out_row)
            at += 4
        elif left >= 2:
            _dots2(here, x_row, a, b, c, d, 0, 0, 0, 0, ahead, n, there, out_row)
            at += 2
        else:
            _dots1(here, x_row, a, b, c, d, 0, 0, 0, 0, ahead, n, there, out_row)
            at += 1


@kernel()
def half_dots_of_codes(x, x_row, m, a, b, c, d, of_a, of_b, of_c, of_d, ahead, n, out, out_row):
    """`half_dots` for four rows of NF4 with their scales, n in whole blocks."""
    at = 0
    while at < m:
        here, there, left = x + 2 * at * x_row, out + 4 * at * out_row, m - at
        if left >= 4:
            _codes4(here, x_row, a, b, c, d, of_a, of_b, of_c, of_d, ahead, n, there, out_row)
            at += 4
        elif left >= 2:
            _codes2(here, x_row, a, b, c, d, of_a, of_b, of_c, of_d, ahead, n, there, out_row)
            at += 2
        else:
            _codes1(here, x_row, a, b, c, d, of_a, of_b, of_c, of_d, ahead, n, there, out_row)
            at += 1


@kernel()
def half_dots_of_grid(x, x_row, m, a, b, c, d, of_a, of_b, of_c, of_d, ahead, n, out, out_row):
    """`half_dots` for four rows of int4 with their steps and least numbers, n in whole blocks."""
    at = 0
    while at < m:
        here, there, left = x + 2 * at * x_row, out + 4 * at * out_row, m - at
        if left >= 4:
            _grid4(here, x_row, a, b, c, d, of_a, of_b, of_c, of_d, ahead, n, there, out_row)
            at += 4
        elif left >= 2:
            _grid2(here, x_row, a, b, c, d, of_a, of_b, of_c, of_d, ahead, n, there, out_row)
            at += 2
        else:
            _grid1(here, x_row, a, b, c, d, of_a, of_b, of_c, of_d, ahead, n, there, out_row)
            at += 1


def _narrow_block_of(kind: int):
    """The numbers of a block, in bfloat16."""

    @instructions
    def narrow(context, codes, scales, out):
        def build(context, builder, signature, args):
            table = _table(builder, kind, args[1]) if MULTIPLIES else None
            for part in range(BLOCK // DEPTH if MULTIPLIES else 0):
                found = _codes(builder, builder.add(args[0], word(LANES * part)), table, part)
                place = builder.add(args[2], word(2 * DEPTH * part))
                builder.store(found, builder.inttoptr(place, NUMBERS.as_pointer()), align=2)
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
