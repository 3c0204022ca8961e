"""Vectors of the CPU, written as LLVM's: the two small products that everything here is made of.

    dots:    out[m, j] = sum_n x[m, n] w[j, n]           lanes run along n, then one tree of sums
    outers:  out[m, v] += sum_n x[m, n] w[n, v]          lanes run along v, n in order

How many rows m are taken at once changes the speed and not one bit: each number has accumulators of
its own, and they are filled and summed in the same order. A compiler that is free to reorder sums
does not promise that, so the instructions are spelled out.
"""

import os

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from ramole_core.kernels.compiled import kernel


def _lanes() -> int:
    """float32 numbers in a vector register; RAMOLE_LANES forces fewer, for tests."""
    features = llvm.get_host_cpu_features()
    lanes = 16 if features.get("avx512f") else 8 if features.get("avx2") else 4
    return min(lanes, int(os.environ.get("RAMOLE_LANES", lanes)))


LANES = _lanes()
MANY = 2 if LANES == 8 else 6  # AVX2 has 16 registers, the others 32
"""Rows of x that are taken at once."""
COLUMNS = 4
"""Rows of w that `dots` meets at once."""

FLOAT, WORD = ir.FloatType(), ir.IntType(64)
VECTOR = ir.VectorType(FLOAT, LANES)


def padded(n: int) -> int:
    """n rounded up to whole vectors."""
    return -(-n // LANES) * LANES


def _word(n: int) -> ir.Constant:
    return ir.Constant(WORD, n)


def _places(numbers) -> ir.Constant:
    numbers = list(numbers)
    kind = ir.IntType(32)
    return ir.Constant(ir.VectorType(kind, len(numbers)), [ir.Constant(kind, n) for n in numbers])


def _pointer(builder, address, steps, step: int, kind=FLOAT):
    """address + steps * step bytes."""
    if step:
        address = builder.add(address, builder.mul(steps, _word(step)))
    return builder.inttoptr(address, kind.as_pointer())


def _fma(builder):
    name = f"llvm.fma.v{LANES}f32"
    known = builder.module.globals.get(name)
    return known or ir.Function(builder.module, ir.FunctionType(VECTOR, [VECTOR] * 3), name)


def _spread(builder, number):
    """A number in every lane."""
    empty = ir.Constant(VECTOR, ir.Undefined)
    one = builder.insert_element(empty, number, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(one, empty, _places([0] * LANES))


def _zero() -> ir.Constant:
    return ir.Constant(VECTOR, [ir.Constant(FLOAT, 0.0)] * LANES)


def _sums(builder, vectors):
    """The sums of four vectors as one of four lanes: halves are added to halves, for each alike."""
    width = LANES
    while width > 4:
        low, high = _places(range(width // 2)), _places(range(width // 2, width))
        vectors = [
            builder.fadd(builder.shuffle_vector(v, v, low), builder.shuffle_vector(v, v, high))
            for v in vectors
        ]
        width //= 2

    def pairs(a, b, first, second):
        left = builder.shuffle_vector(a, b, _places(first))
        return builder.fadd(left, builder.shuffle_vector(a, b, _places(second)))

    front = pairs(vectors[0], vectors[1], (0, 1, 4, 5), (2, 3, 6, 7))
    back = pairs(vectors[2], vectors[3], (0, 1, 4, 5), (2, 3, 6, 7))
    return pairs(front, back, (0, 2, 4, 6), (1, 3, 5, 7))


def _dots_of(rows: int):
    """`dots` of so many rows of x and four of w; n is in whole vectors."""

    @intrinsic
    def dots(context, x, x_row, w, w_row, n, out, out_row):
        def build(context, builder, signature, args):
            x, x_row, w, w_row, n, out, out_row = args
            fma, start = _fma(builder), builder.block
            loop, done = builder.append_basic_block("dots"), builder.append_basic_block("done")
            xs = [builder.add(x, builder.mul(x_row, _word(4 * m))) for m in range(rows)]
            ws = [builder.add(w, builder.mul(w_row, _word(4 * j))) for j in range(COLUMNS)]
            builder.branch(loop)
            builder.position_at_end(loop)
            at = builder.phi(WORD)
            at.add_incoming(_word(0), start)
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
            onward = builder.add(at, _word(4 * LANES))
            at.add_incoming(onward, loop)
            for before, after in zip(sums, new, strict=True):
                for one, other in zip(before, after, strict=True):
                    one.add_incoming(_zero(), start)
                    one.add_incoming(other, loop)
            end = builder.mul(n, _word(4))
            builder.cbranch(builder.icmp_signed("<", onward, end), loop, done)
            builder.position_at_end(done)
            for m, after in enumerate(new):
                place = builder.add(out, builder.mul(out_row, _word(4 * m)))
                place = builder.inttoptr(place, ir.VectorType(FLOAT, COLUMNS).as_pointer())
                builder.store(_sums(builder, after), place, align=4)
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


def _outers_of(rows: int, width: int):
    """`outers` of so many rows of x and vectors of w."""

    @intrinsic
    def outers(context, x, x_row, w, w_row, n, out, out_row):
        def build(context, builder, signature, args):
            x, x_row, w, w_row, n, out, out_row = args
            fma, start = _fma(builder), builder.block
            loop, done = builder.append_basic_block("outers"), builder.append_basic_block("done")
            xs = [builder.add(x, builder.mul(x_row, _word(4 * m))) for m in range(rows)]
            outs = [builder.add(out, builder.mul(out_row, _word(4 * m))) for m in range(rows)]

            def vector(address, v):
                place = builder.add(address, _word(4 * LANES * v))
                return builder.inttoptr(place, VECTOR.as_pointer())

            first = [[builder.load(vector(o, v), align=4) for v in range(width)] for o in outs]
            builder.branch(loop)
            builder.position_at_end(loop)
            at = builder.phi(WORD)
            at.add_incoming(_word(0), start)
            sums = [[builder.phi(VECTOR) for _ in range(width)] for _ in xs]
            here = builder.add(w, builder.mul(at, builder.mul(w_row, _word(4))))
            weights = [builder.load(vector(here, v), align=4) for v in range(width)]
            new = []
            for m, address in enumerate(xs):
                number = builder.load(_pointer(builder, address, at, 4), align=4)
                number = _spread(builder, number)
                new.append(
                    [builder.call(fma, [number, weights[v], sums[m][v]]) for v in range(width)]
                )
            onward = builder.add(at, _word(1))
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


def _columns_of(half: bool):
    """`outers` of one row whose w are rows of a matrix at any places, one vector of each."""

    @intrinsic
    def columns(context, x, places, n, w, w_row, out):
        def build(context, builder, signature, args):
            x, places, n, w, w_row, out = args
            fma, start = _fma(builder), builder.block
            loop, done = builder.append_basic_block("columns"), builder.append_basic_block("done")
            here = builder.inttoptr(out, VECTOR.as_pointer())
            first = builder.load(here, align=4)
            builder.branch(loop)
            builder.position_at_end(loop)
            at, total = builder.phi(WORD), builder.phi(VECTOR)
            at.add_incoming(_word(0), start)
            total.add_incoming(first, start)
            place = builder.load(_pointer(builder, places, at, 4, ir.IntType(32)), align=4)
            row = builder.mul(builder.sext(place, WORD), w_row)
            address = builder.add(w, builder.mul(row, _word(2 if half else 4)))
            if half:
                bits = ir.VectorType(ir.IntType(16), LANES)
                weight = builder.load(builder.inttoptr(address, bits.as_pointer()), align=2)
                weight = builder.zext(weight, ir.VectorType(ir.IntType(32), LANES))
                weight = builder.bitcast(builder.shl(weight, _places([16] * LANES)), VECTOR)
            else:
                weight = builder.load(builder.inttoptr(address, VECTOR.as_pointer()), align=4)
            number = _spread(builder, builder.load(_pointer(builder, x, at, 4), align=4))
            new = builder.call(fma, [number, weight, total])
            onward = builder.add(at, _word(1))
            at.add_incoming(onward, loop)
            total.add_incoming(new, loop)
            builder.cbranch(builder.icmp_signed("<", onward, n), loop, done)
            builder.position_at_end(done)
            builder.store(new, here, align=4)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 6), build

    return columns


columns_of_halves, columns_of_floats = _columns_of(True), _columns_of(False)


NF4 = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
    *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
    *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)
"""The sixteen numbers of NF4 (QLoRA, arXiv 2305.14314, appendix E)."""
TABLE = np.array(NF4, np.float32)
BLOCK = 64
"""Weights that share one scale."""


@intrinsic
def _widen_block(context, codes, scale, out):
    """BLOCK weights from 32 bytes, the first of two in the high half of its byte."""

    def build(context, builder, signature, args):
        codes, scale, out = args
        whole = ir.VectorType(ir.IntType(32), LANES)
        scales = _spread(builder, scale)
        for part in range(BLOCK // LANES):
            kind = ir.VectorType(ir.IntType(8), LANES // 2)
            place = builder.add(codes, _word(part * LANES // 2))
            pairs = builder.load(builder.inttoptr(place, kind.as_pointer()), align=1)
            twice = builder.shuffle_vector(pairs, pairs, _places(n // 2 for n in range(LANES)))
            at = builder.lshr(builder.zext(twice, whole), _places([4, 0] * (LANES // 2)))
            at = builder.and_(at, _places([15] * LANES))
            numbers = builder.fmul(_look_up(builder, at), scales)
            place = builder.add(out, _word(4 * part * LANES))
            builder.store(numbers, builder.inttoptr(place, VECTOR.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(types.int64, types.float32, types.int64), build


def _look_up(builder, at):
    """NF4[at], by the instruction that permutes a register."""
    whole = ir.VectorType(ir.IntType(32), LANES)

    def table(numbers):
        return ir.Constant(VECTOR, [ir.Constant(FLOAT, float(np.float32(n))) for n in numbers])

    def permute(name, arguments):
        known = builder.module.globals.get(name)
        kind = ir.FunctionType(VECTOR, [VECTOR, whole])
        return builder.call(known or ir.Function(builder.module, kind, name), arguments)

    if LANES == 16:
        return permute("llvm.x86.avx512.permvar.sf.512", [table(NF4), at])
    low = permute("llvm.x86.avx2.permps", [table(NF4[:8]), at])
    high = permute("llvm.x86.avx2.permps", [table(NF4[8:]), at])
    return builder.select(builder.icmp_unsigned("<", at, _places([8] * LANES)), low, high)


PERMUTES = LANES > 4


@kernel()
def widen_nf4(codes, scales, n, out):
    """n weights (whole blocks) from NF4 to float32: addresses of bytes, scales and the result."""
    for block in range(n // BLOCK):
        scale = scales[block]
        if PERMUTES:
            _widen_block(codes.ctypes.data + 32 * block, scale, out.ctypes.data + 256 * block)
        else:
            for pair in range(BLOCK // 2):
                byte, at = codes[32 * block + pair], BLOCK * block + 2 * pair
                out[at] = TABLE[byte >> 4] * scale
                out[at + 1] = TABLE[byte & 15] * scale
