"""out[m, j] = sum_n x[m, n] w[j, n]: lanes run along n, then one tree of sums.

How many rows m are taken at once changes the speed and not one bit: each number has an accumulator
of its own, filled and summed in the same order.
"""

from llvmlite import ir
from numba import types

from ramole_core.kernels.compiled import instructions, kernel
from ramole_core.kernels.vectors import (
    FLOAT,
    LANES,
    MANY,
    VECTOR,
    WORD,
    fma_of,
    places,
    word,
    zero,
)

COLUMNS = 4
"""Rows of w that are met at once."""


def sums_of(builder, vectors):
    """The sums of four vectors as one of four lanes, halves added to halves."""
    width = LANES
    while width > 4:
        low, high = places(range(width // 2)), places(range(width // 2, width))
        vectors = [
            builder.fadd(builder.shuffle_vector(v, v, low), builder.shuffle_vector(v, v, high))
            for v in vectors
        ]
        width //= 2

    def pairs(a, b, first, second):
        left = builder.shuffle_vector(a, b, places(first))
        return builder.fadd(left, builder.shuffle_vector(a, b, places(second)))

    front = pairs(vectors[0], vectors[1], (0, 1, 4, 5), (2, 3, 6, 7))
    back = pairs(vectors[2], vectors[3], (0, 1, 4, 5), (2, 3, 6, 7))
    return pairs(front, back, (0, 2, 4, 6), (1, 3, 5, 7))


def _dots_of(rows: int):
    """`dots` of so many rows of x and four of w; n is in whole vectors."""

    @instructions
    def dots(context, x, x_row, w, w_row, n, out, out_row):
        def build(context, builder, signature, args):
            x, x_row, w, w_row, n, out, out_row = args
            fma, start = fma_of(builder), builder.block
            loop, done = builder.append_basic_block("dots"), builder.append_basic_block("done")
            xs = [builder.add(x, builder.mul(x_row, word(4 * m))) for m in range(rows)]
            ws = [builder.add(w, builder.mul(w_row, word(4 * j))) for j in range(COLUMNS)]
            builder.branch(loop)
            builder.position_at_end(loop)
            at = builder.phi(WORD)
            at.add_incoming(word(0), start)
            sums = [[builder.phi(VECTOR) for _ in ws] for _ in xs]

            def load(address):
                place = builder.inttoptr(builder.add(address, at), VECTOR.as_pointer())
                return builder.load(place, align=4)

            weights, new = [load(address) for address in ws], []
            for m, address in enumerate(xs):
                number = load(address)
                new.append(
                    [
                        builder.call(fma, [number, weight, sums[m][j]])
                        for j, weight in enumerate(weights)
                    ]
                )
            onward = builder.add(at, word(4 * LANES))
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

        return types.void(*[types.int64] * 7), build

    return dots


_dots1, _dots2, _dots4, _dots6 = (_dots_of(rows) for rows in (1, 2, 4, 6))


@kernel()
def dots(x, x_row, m, w, w_row, n, out, out_row):
    """out[:m, :4] = x [m, n] w[:4, n]^T; addresses of float32, rows in numbers, n in whole
    vectors."""
    at = 0
    if MANY == 6:
        while at + 6 <= m:
            _dots6(x + 4 * at * x_row, x_row, w, w_row, n, out + 4 * at * out_row, out_row)
            at += 6
        if at + 4 <= m:
            _dots4(x + 4 * at * x_row, x_row, w, w_row, n, out + 4 * at * out_row, out_row)
            at += 4
    while at + 2 <= m:
        _dots2(x + 4 * at * x_row, x_row, w, w_row, n, out + 4 * at * out_row, out_row)
        at += 2
    if at < m:
        _dots1(x + 4 * at * x_row, x_row, w, w_row, n, out + 4 * at * out_row, out_row)
