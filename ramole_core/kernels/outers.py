"""out[m, v] += sum_n x[m, n] w[n, v]: lanes run along v, n in order.

How many rows and columns are taken at once changes the speed and not one bit.
"""

from llvmlite import ir
from numba import types

from ramole_core.kernels.compiled import instructions, kernel
from ramole_core.kernels.vectors import (
    LANES,
    MANY,
    VECTOR,
    WORD,
    fma_of,
    places,
    pointer,
    spread,
    word,
)


def _outers_of(rows: int, width: int):
    """`outers` of so many rows of x and vectors of w."""

    @instructions
    def outers(context, x, x_row, w, w_row, n, out, out_row):
        def build(context, builder, signature, args):
            x, x_row, w, w_row, n, out, out_row = args
            fma, start = fma_of(builder), builder.block
            loop, done = builder.append_basic_block("outers"), builder.append_basic_block("done")
            xs = [builder.add(x, builder.mul(x_row, word(4 * m))) for m in range(rows)]
            outs = [builder.add(out, builder.mul(out_row, word(4 * m))) for m in range(rows)]

            def vector(address, v):
                place = builder.add(address, word(4 * LANES * v))
                return builder.inttoptr(place, VECTOR.as_pointer())

            first = [[builder.load(vector(o, v), align=4) for v in range(width)] for o in outs]
            builder.branch(loop)
            builder.position_at_end(loop)
            at = builder.phi(WORD)
            at.add_incoming(word(0), start)
            sums = [[builder.phi(VECTOR) for _ in range(width)] for _ in xs]
            here = builder.add(w, builder.mul(at, builder.mul(w_row, word(4))))
            weights = [builder.load(vector(here, v), align=4) for v in range(width)]
            new = []
            for m, address in enumerate(xs):
                number = builder.load(pointer(builder, address, at, 4), align=4)
                number = spread(builder, number)
                new.append(
                    [builder.call(fma, [number, weights[v], sums[m][v]]) for v in range(width)]
                )
            onward = builder.add(at, word(1))
            at.add_incoming(onward, loop)
            for before, after, begun in zip(sums, new, first, strict=True):
                for one, other, begin in zip(before, after, begun, strict=True):
                    one.add_incoming(begin, start)
                    one.add_incoming(other, loop)
            builder.cbranch(builder.icmp_signed("<", onward, n), loop, done)
            builder.position_at_end(done)
            for place, after in zip(outs, new, strict=True):
                for v in range(width):
                    builder.store(after[v], vector(place, v), align=4)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 7), build

    return outers


_outers1x1, _outers2x1, _outers6x1 = (_outers_of(rows, 1) for rows in (1, 2, 6))
_outers1x4, _outers2x4, _outers6x4 = (_outers_of(rows, 4) for rows in (1, 2, 6))


@kernel()
def outers(x, x_row, m, w, w_row, n, out, out_row, columns):
    """out[:m, :columns] += x [m, n] w [n, columns]; addresses of float32, rows in numbers,
    columns in whole vectors, n at least 1."""
    v = 0
    while v < columns:
        four = MANY == 6 and v + 4 * LANES <= columns
        at, w_at, out_at = 0, w + 4 * v, out + 4 * v
        while at < m:
            x_here, out_here = x + 4 * at * x_row, out_at + 4 * at * out_row
            if four:
                if at + 6 <= m:
                    _outers6x4(x_here, x_row, w_at, w_row, n, out_here, out_row)
                    at += 6
                elif at + 2 <= m:
                    _outers2x4(x_here, x_row, w_at, w_row, n, out_here, out_row)
                    at += 2
                else:
                    _outers1x4(x_here, x_row, w_at, w_row, n, out_here, out_row)
                    at += 1
            elif at + 6 <= m:
                _outers6x1(x_here, x_row, w_at, w_row, n, out_here, out_row)
                at += 6
            elif at + 2 <= m:
                _outers2x1(x_here, x_row, w_at, w_row, n, out_here, out_row)
                at += 2
            else:
                _outers1x1(x_here, x_row, w_at, w_row, n, out_here, out_row)
                at += 1
        v += 4 * LANES if four else LANES


def _columns_of(half: bool, width: int):
    """`outers` of one row whose w are rows of a matrix at any places, `width` vectors of each."""

    @instructions
    def columns(context, x, rows, n, w, w_row, out):
        def build(context, builder, signature, args):
            x, rows, n, w, w_row, out = args
            fma, start = fma_of(builder), builder.block
            loop, done = builder.append_basic_block("columns"), builder.append_basic_block("done")

            def vector(address, v):
                place = builder.add(address, word(4 * LANES * v))
                return builder.inttoptr(place, VECTOR.as_pointer())

            def weight_of(address, v):
                if not half:
                    return builder.load(vector(address, v), align=4)
                bits = ir.VectorType(ir.IntType(16), LANES)
                place = builder.add(address, word(2 * LANES * v))
                found = builder.load(builder.inttoptr(place, bits.as_pointer()), align=2)
                found = builder.zext(found, ir.VectorType(ir.IntType(32), LANES))
                return builder.bitcast(builder.shl(found, places([16] * LANES)), VECTOR)

            first = [builder.load(vector(out, v), align=4) for v in range(width)]
            builder.branch(loop)
            builder.position_at_end(loop)
            at, totals = builder.phi(WORD), [builder.phi(VECTOR) for _ in first]
            at.add_incoming(word(0), start)
            place = builder.load(pointer(builder, rows, at, 4, ir.IntType(32)), align=4)
            row = builder.mul(builder.sext(place, WORD), w_row)
            address = builder.add(w, builder.mul(row, word(2 if half else 4)))
            number = spread(builder, builder.load(pointer(builder, x, at, 4), align=4))
            new = [
                builder.call(fma, [number, weight_of(address, v), total])
                for v, total in enumerate(totals)
            ]
            onward = builder.add(at, word(1))
            at.add_incoming(onward, loop)
            for total, begin, after in zip(totals, first, new, strict=True):
                total.add_incoming(begin, start)
                total.add_incoming(after, loop)
            builder.cbranch(builder.icmp_signed("<", onward, n), loop, done)
            builder.position_at_end(done)
            for v, after in enumerate(new):
                builder.store(after, vector(out, v), align=4)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 6), build

    return columns


_halves, _four_halves = _columns_of(True, 1), _columns_of(True, 4)
_floats, _four_floats = _columns_of(False, 1), _columns_of(False, 4)


@kernel()
def columns_of(x, rows, n, w, w_row, half, out, columns):
    """out[:columns] += x [n] w[rows[:n], :columns], w in bfloat16 (half) or float32; addresses,
    columns in whole vectors, n at least 1."""
    v = 0
    while v < columns:
        four = v + 4 * LANES <= columns
        if half:
            if four:
                _four_halves(x, rows, n, w + 2 * v, w_row, out + 4 * v)
            else:
                _halves(x, rows, n, w + 2 * v, w_row, out + 4 * v)
        elif four:
            _four_floats(x, rows, n, w + 4 * v, w_row, out + 4 * v)
        else:
            _floats(x, rows, n, w + 4 * v, w_row, out + 4 * v)
        v += 4 * LANES if four else LANES
