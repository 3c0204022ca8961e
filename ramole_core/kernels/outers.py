"""out[m, v] += sum_n x[m, n] w[n, v]: lanes run along v, n in order.

How many rows and columns are taken at once changes the speed and not one bit.
"""

from llvmlite import ir
from numba import types

from ramole_core.kernels.compiled import instructions, kernel
from ramole_core.kernels.vectors import (
    FLOAT,
    LANES,
    MAX_ROWS,
    VECTOR,
    WORD,
    accumulate,
    fma,
    in_steps,
    load,
    moved,
    places,
    spread,
    store,
    word,
)

ROWS = (6, 2, 1)
"""Rows of x that are taken at once."""


def _vectors(builder, address, count: int) -> list:
    """The addresses of neighbouring vectors."""
    return [builder.add(address, word(4 * LANES * v)) for v in range(count)]


@instructions
def _outers(context, x, x_row, m, w, w_row, n, out, out_row, columns):
    def build(context, builder, signature, args):
        x, x_row, m, w, w_row, n, out, out_row, columns = args

        def square(first, rows: int, v, width: int) -> None:
            here, w_here = moved(builder, x, first, x_row, 4), moved(builder, w, v, 4)
            out_here = builder.add(moved(builder, out, first, out_row, 4), builder.mul(v, word(4)))
            xs = [moved(builder, here, x_row, 4 * row) for row in range(rows)]
            outs = [
                place
                for row in range(rows)
                for place in _vectors(builder, moved(builder, out_here, out_row, 4 * row), width)
            ]

            def add(at, sums):
                weights = _vectors(builder, moved(builder, w_here, at, w_row, 4), width)
                weights = [load(builder, place) for place in weights]
                numbers = [
                    spread(builder, load(builder, moved(builder, x, at, 4), FLOAT)) for x in xs
                ]
                pairs = ((number, weight) for number in numbers for weight in weights)
                return [fma(builder, *pair, total) for pair, total in zip(pairs, sums, strict=True)]

            sums = accumulate(builder, n, 1, [load(builder, place) for place in outs], add)
            for place, total in zip(outs, sums, strict=True):
                store(builder, total, place)

        def strip(v, size: int) -> None:
            in_steps(builder, m, ROWS, lambda first, rows: square(first, rows, v, size // LANES))

        in_steps(builder, columns, (4 * LANES, LANES) if MAX_ROWS == 6 else (LANES,), strip)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 9), build


@kernel()
def outers(x, x_row, m, w, w_row, n, out, out_row, columns):
    """out[:m, :columns] += x [m, n] w [n, columns]; addresses of float32, rows in numbers,
    columns in whole vectors, n at least 1."""
    _outers(x, x_row, m, w, w_row, n, out, out_row, columns)


def _columns_of(half: bool):
    """`outers` of one row whose w are rows of a matrix at any places."""
    size = 2 if half else 4

    @instructions
    def columns(context, x, rows, n, w, w_row, out, columns):
        def build(context, builder, signature, args):
            x, rows, n, w, w_row, out, columns = args

            def weight_of(address, v: int):
                place = builder.add(address, word(size * LANES * v))
                if not half:
                    return load(builder, place)
                found = load(builder, place, ir.VectorType(ir.IntType(16), LANES), align=2)
                found = builder.zext(found, ir.VectorType(ir.IntType(32), LANES))
                return builder.bitcast(builder.shl(found, places([16] * LANES)), VECTOR)

            def strip(first, count: int) -> None:
                outs = _vectors(builder, moved(builder, out, first, 4), count // LANES)

                def add(at, sums):
                    row = load(builder, moved(builder, rows, at, 4), ir.IntType(32))
                    address = moved(builder, w, builder.sext(row, WORD), w_row, size)
                    address = moved(builder, address, first, size)
                    number = spread(builder, load(builder, moved(builder, x, at, 4), FLOAT))
                    return [
                        fma(builder, number, weight_of(address, v), total)
                        for v, total in enumerate(sums)
                    ]

                sums = accumulate(builder, n, 1, [load(builder, place) for place in outs], add)
                for place, total in zip(outs, sums, strict=True):
                    store(builder, total, place)

            in_steps(builder, columns, (4 * LANES, LANES), strip)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 7), build

    return columns


_halves, _floats = _columns_of(True), _columns_of(False)


@kernel()
def columns_of(x, rows, n, w, w_row, half, out, columns):
    """out[:columns] += x [n] w[rows[:n], :columns], w in bfloat16 (half) or float32; addresses,
    columns in whole vectors, n at least 1."""
    if half:
        _halves(x, rows, n, w, w_row, out, columns)
    else:
        _floats(x, rows, n, w, w_row, out, columns)
