"""`dots` of weights where they lie, in 4 bits, int8 or bfloat16: widened in registers.

Numbers and the order of their sums are those of `widen` and `dots`, and so are the bits. A weight
is widened anew for every ROWS_AT_ONCE rows, which is less work than storing it, as long as the rows
are few.
"""

from llvmlite import ir
from numba import types

from ramole_core.kernels.call_args import ask_memory
from ramole_core.kernels.compiled import instructions, kernel
from ramole_core.kernels.dots import sums_of
from ramole_core.kernels.outputs import BYTES, CODES, GRID, HALVES
from ramole_core.kernels.vectors import (
    COLUMNS,
    FLOAT,
    LANES,
    MANY,
    VECTOR,
    WORD,
    fma_of,
    places,
    spread,
    word,
    zero,
)
from ramole_core.kernels.widen import (
    BLOCK,
    GROUP,
    PAIR,
    PERMUTES,
    WORDS_OF,
    bytes_of,
    grid_of,
    look_up,
    on_grid,
    table_of,
)

ROWS_AT_ONCE = 4 if MANY == 6 else 2
"""Rows of x that are multiplied at once."""
MAX_DIRECT_ROWS = 8
"""For so many rows or fewer this is the faster way."""
AHEAD = 8192
"""How far ahead memory is asked for what is read in order, in bytes."""


def _shifted(builder, address, at, shift: int):
    """address + at bytes, divided by 2^shift."""
    return builder.add(address, builder.lshr(at, word(shift)))


def _load(builder, address, n: int):
    """The n-th vector from an address on."""
    place = builder.add(address, word(4 * LANES * n))
    return builder.load(builder.inttoptr(place, VECTOR.as_pointer()), align=4)


def _halves(builder, address):
    """The two vectors of PAIR bfloat16 numbers: the low half of a word is the even one."""
    both = builder.load(builder.inttoptr(address, WORDS_OF.as_pointer()), align=2)
    even = builder.shl(both, places([16] * LANES))
    odd = builder.and_(both, places([0xFFFF0000] * LANES))
    return builder.bitcast(even, VECTOR), builder.bitcast(odd, VECTOR)


def _codes(builder, address, table):
    """The two vectors of PAIR weights from LANES bytes, by the sixteen numbers of their block."""
    kind = ir.VectorType(ir.IntType(8), LANES)
    both = builder.load(builder.inttoptr(address, kind.as_pointer()), align=1)
    both = builder.zext(both, WORDS_OF)
    even = builder.lshr(both, places([4] * LANES))
    odd = builder.and_(both, places([15] * LANES))
    return look_up(builder, table, even), look_up(builder, table, odd)


SHIFT = {CODES: 3, GRID: 3, BYTES: 2, HALVES: 1}
"""How often the bytes of x are halved for those of the same weights."""


def _dots_of(rows: int, kind: int):
    """Build `direct` for so many rows of x; on a CPU without table lookup it is empty and never
    called."""
    codes, grid = kind == CODES, kind == GRID
    step = BLOCK if codes or grid else PAIR  # weights of a turn of the loop

    @instructions
    def dots(context, x, x_row, a, b, c, d, of_a, of_b, of_c, of_d, ahead, n, out, out_row):
        def build(context, builder, signature, args):
            if codes and not PERMUTES:
                return context.get_dummy_value()
            x, x_row, *both, ahead, n, out, out_row = args
            ws, scales = both[:COLUMNS], both[COLUMNS:]
            fma, start = fma_of(builder), builder.block
            loop, done = builder.append_basic_block("direct"), builder.append_basic_block("done")
            xs = [builder.add(x, builder.mul(x_row, word(4 * m))) for m in range(rows)]
            builder.branch(loop)
            builder.position_at_end(loop)
            at = builder.phi(WORD)  # bytes of x
            at.add_incoming(word(0), start)
            sums = [[builder.phi(VECTOR) for _ in ws] for _ in xs]
            new = [list(of_row) for of_row in sums]
            inputs = [builder.add(address, at) for address in xs]
            tables = []
            for address in scales if codes else ():
                place = _shifted(builder, address, at, 6)
                scale = builder.load(builder.inttoptr(place, FLOAT.as_pointer()), align=4)
                tables.append(table_of(builder, spread(builder, scale)))
            for pair in range(step // PAIR):
                numbers = [
                    [_load(builder, address, 2 * pair + odd) for odd in (0, 1)]
                    for address in inputs
                ]
                for j, address in enumerate(ws):
                    place = _shifted(builder, address, at, SHIFT[kind])
                    if pair == 0:
                        ask_memory(builder, builder.add(place, ahead))
                    if codes or grid:
                        place = builder.add(place, word(LANES * pair))
                    if codes:
                        weights = _codes(builder, place, tables[j])
                    elif grid:
                        of_block = _shifted(builder, scales[j], at, 5)
                        of_group = grid_of(builder, of_block, pair * PAIR // GROUP)
                        weights = on_grid(builder, place, *of_group)
                    elif kind == BYTES:
                        weights = bytes_of(builder, place)
                    else:
                        weights = _halves(builder, place)
                    for m, both in enumerate(numbers):
                        for number, weight in zip(both, weights, strict=True):
                            new[m][j] = builder.call(fma, [number, weight, new[m][j]])
            onward = builder.add(at, word(4 * step))
            at.add_incoming(onward, loop)
            for before, after in zip(sums, new, strict=True):
                for one, other in zip(before, after, strict=True):
                    one.add_incoming(zero(), start)
                    one.add_incoming(other, loop)
            end = builder.mul(n, word(4))
            builder.cbranch(builder.icmp_signed("<", onward, end), loop, done)
            builder.position_at_end(done)
            for m, after in enumerate(new):
                place = builder.add(out, builder.mul(out_row, word(4 * m)))
                place = builder.inttoptr(place, ir.VectorType(FLOAT, COLUMNS).as_pointer())
                builder.store(sums_of(builder, after), place, align=4)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 14), build

    return dots


_codes1, _codes2, _codes4 = (_dots_of(rows, CODES) for rows in (1, 2, 4))
_grid1, _grid2, _grid4 = (_dots_of(rows, GRID) for rows in (1, 2, 4))
_bytes1, _bytes2, _bytes4 = (_dots_of(rows, BYTES) for rows in (1, 2, 4))
_halves1, _halves2, _halves4 = (_dots_of(rows, HALVES) for rows in (1, 2, 4))


@kernel()
def dots_of_halves(x, x_row, m, a, b, c, d, ahead, n, out, out_row):
    """out[:m, :4] = x [m, n] times four rows of n bfloat16 numbers; addresses (x and out: float32,
    x in the order of `dots`), rows in numbers, n in whole pairs of vectors. What lies `ahead` bytes
    behind each weight is prefetched."""
    at = 0
    while at < m:
        here, there = x + 4 * at * x_row, out + 4 * at * out_row
        if ROWS_AT_ONCE == 4 and at + 4 <= m:
            _halves4(here, x_row, a, b, c, d, 0, 0, 0, 0, ahead, n, there, out_row)
            at += 4
        elif at + 2 <= m:
            _halves2(here, x_row, a, b, c, d, 0, 0, 0, 0, ahead, n, there, out_row)
            at += 2
        else:
            _halves1(here, x_row, a, b, c, d, 0, 0, 0, 0, ahead, n, there, out_row)
            at += 1


@kernel()
def dots_of_bytes(x, x_row, m, a, b, c, d, ahead, n, out, out_row):
    """`dots_of_halves` for four rows of int8 numbers, without their scales."""
    at = 0
    while at < m:
        here, there = x + 4 * at * x_row, out + 4 * at * out_row
        if ROWS_AT_ONCE == 4 and at + 4 <= m:
            _bytes4(here, x_row, a, b, c, d, 0, 0, 0, 0, ahead, n, there, out_row)
            at += 4
        elif at + 2 <= m:
            _bytes2(here, x_row, a, b, c, d, 0, 0, 0, 0, ahead, n, there, out_row)
            at += 2
        else:
            _bytes1(here, x_row, a, b, c, d, 0, 0, 0, 0, ahead, n, there, out_row)
            at += 1


@kernel()
def dots_of_codes(x, x_row, m, a, b, c, d, of_a, of_b, of_c, of_d, ahead, n, out, out_row):
    """`dots_of_halves` for four rows of NF4 with their scales, n in whole blocks."""
    at = 0
    while at < m:
        here, there = x + 4 * at * x_row, out + 4 * at * out_row
        if ROWS_AT_ONCE == 4 and at + 4 <= m:
            _codes4(here, x_row, a, b, c, d, of_a, of_b, of_c, of_d, ahead, n, there, out_row)
            at += 4
        elif at + 2 <= m:
            _codes2(here, x_row, a, b, c, d, of_a, of_b, of_c, of_d, ahead, n, there, out_row)
            at += 2
        else:
            _codes1(here, x_row, a, b, c, d, of_a, of_b, of_c, of_d, ahead, n, there, out_row)
            at += 1


@kernel()
def dots_of_grid(x, x_row, m, a, b, c, d, of_a, of_b, of_c, of_d, ahead, n, out, out_row):
    """The same for four rows of int4 with their steps and least numbers, n in whole blocks."""
    at = 0
    while at < m:
        here, there = x + 4 * at * x_row, out + 4 * at * out_row
        if ROWS_AT_ONCE == 4 and at + 4 <= m:
            _grid4(here, x_row, a, b, c, d, of_a, of_b, of_c, of_d, ahead, n, there, out_row)
            at += 4
        elif at + 2 <= m:
            _grid2(here, x_row, a, b, c, d, of_a, of_b, of_c, of_d, ahead, n, there, out_row)
            at += 2
        else:
            _grid1(here, x_row, a, b, c, d, of_a, of_b, of_c, of_d, ahead, n, there, out_row)
            at += 1
