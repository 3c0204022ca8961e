"""The CPU's vectors in LLVM, for `dots`, `outers` and `widen`.

A compiler that is free to reorder sums does not promise that a number is summed alike in every
function that it makes, so the instructions are ours.
"""

import os

import llvmlite.binding as llvm
from llvmlite import ir


def _lanes() -> int:
    """The number of float32 lanes in a vector register; RAMOLE_LANES forces fewer, for tests."""
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


def paired(n: int) -> int:
    """n rounded up to whole pairs of vectors."""
    return -(-n // (2 * LANES)) * 2 * LANES


def word(n: int) -> ir.Constant:
    return ir.Constant(WORD, n)


def places(numbers) -> ir.Constant:
    numbers = list(numbers)
    kind = ir.IntType(32)
    return ir.Constant(ir.VectorType(kind, len(numbers)), [ir.Constant(kind, n) for n in numbers])


def pointer(builder, address, steps, step: int, kind: ir.Type = FLOAT):
    """address + steps * step bytes."""
    if step:
        address = builder.add(address, builder.mul(steps, word(step)))
    return builder.inttoptr(address, kind.as_pointer())


def fma_of(builder):
    name = f"llvm.fma.v{LANES}f32"
    known = builder.module.globals.get(name)
    return known or ir.Function(builder.module, ir.FunctionType(VECTOR, [VECTOR] * 3), name)


def spread(builder, number):
    """A number in every lane."""
    empty = ir.Constant(VECTOR, ir.Undefined)
    one = builder.insert_element(empty, number, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(one, empty, places([0] * LANES))


def zero() -> ir.Constant:
    return ir.Constant(VECTOR, [ir.Constant(FLOAT, 0.0)] * LANES)
