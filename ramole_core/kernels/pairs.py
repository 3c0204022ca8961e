"""`dots` of bfloat16 numbers where they lie: the CPU multiplies pairs of them and sums in float32.

How many rows are taken at once changes the speed and not one bit, as in `dots`.
"""

from llvmlite import ir
from numba import types

from ramole_core.kernels.compiled import instructions, kernel
from ramole_core.kernels.dots import COLUMNS, sums_of
from ramole_core.kernels.matrix_unit import MATRIX, Bfloat
from ramole_core.kernels.vectors import FLOAT, VECTOR, WORD, word, zero

PAIRS = MATRIX
"""Whether the CPU has the instruction: every one with a matrix unit has."""
WIDTH = 32
"""Numbers of a vector."""


def _pairs_of(rows: int):
    """Build `pairs` for so many rows of x; compiled, but not called, on a CPU without the
    instruction."""

    @instructions
    def pairs(context, x, x_row, first, second, third, fourth, n, out, out_row):
        def build(context, builder, signature, args):
            if not PAIRS:
                return context.get_dummy_value()
            x, x_row, *ws, n, out, out_row = args
            start = builder.block
            loop, done = builder.append_basic_block("pairs"), builder.append_basic_block("done")
            kind = ir.VectorType(Bfloat(), WIDTH)
            name = "llvm.x86.avx512bf16.dpbf16ps.512"
            step = ir.FunctionType(VECTOR, [VECTOR, kind, kind])
            add = builder.module.globals.get(name) or ir.Function(builder.module, step, name)
            xs = [builder.add(x, builder.mul(x_row, word(2 * m))) for m in range(rows)]
            builder.branch(loop)
            builder.position_at_end(loop)
            at = builder.phi(WORD)
            at.add_incoming(word(0), start)
            sums = [[builder.phi(VECTOR) for _ in ws] for _ in xs]

            def load(address):
                place = builder.inttoptr(builder.add(address, at), kind.as_pointer())
                return builder.load(place, align=2)

            weights, new = [load(address) for address in ws], []
            for m, address in enumerate(xs):
                number = load(address)
                new.append(
                    [
                        builder.call(add, [sums[m][j], number, weight])
                        for j, weight in enumerate(weights)
                    ]
                )
            onward = builder.add(at, word(2 * WIDTH))
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

        return types.void(*[types.int64] * 9), build

    return pairs


_pairs1, _pairs2, _pairs4 = (_pairs_of(rows) for rows in (1, 2, 4))


@kernel()
def pairs(x, x_row, m, first, second, third, fourth, n, out, out_row):
    """out[:m, :4] = x [m, n] times four rows of n numbers; addresses of bfloat16 (out: float32),
    rows in numbers, n in whole vectors of WIDTH."""
    at = 0
    while at < m:
        here, there = x + 2 * at * x_row, out + 4 * at * out_row
        if at + 4 <= m:
            _pairs4(here, x_row, first, second, third, fourth, n, there, out_row)
            at += 4
        elif at + 2 <= m:
            _pairs2(here, x_row, first, second, third, fourth, n, there, out_row)
            at += 2
        else:
            _pairs1(here, x_row, first, second, third, fourth, n, there, out_row)
            at += 1
