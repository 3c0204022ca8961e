"""The CPU's vectors in LLVM, for `dots`, `outers` and `widen`.

A compiler that is free to reorder sums does not promise that a number is summed alike in every
function that it makes, so the instructions are ours.
"""

import os
from collections.abc import Callable, Sequence

import llvmlite.binding as llvm
from llvmlite import ir


def _lanes() -> int:
    """The number of float32 lanes in a vector register; RAMOLE_LANES forces fewer, for tests."""
    features = llvm.get_host_cpu_features()
    lanes = 16 if features.get("avx512f") else 8 if features.get("avx2") else 4
    return min(lanes, int(os.environ.get("RAMOLE_LANES", lanes)))


LANES = _lanes()
MAX_ROWS = 2 if LANES == 8 else 6  # AVX2 has 16 registers, the others 32
"""Rows of x that are taken at once."""

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


def moved(builder, address, *steps):
    """address + the product of `steps` (values, or numbers known here) in bytes."""
    values = [word(step) if isinstance(step, int) else step for step in steps]
    step = values[0]
    for value in values[1:]:
        step = builder.mul(step, value)
    return builder.add(address, step)


class Bfloat(ir.Type):
    """LLVM's bfloat16, which llvmlite lacks."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Bfloat)

    def __hash__(self) -> int:
        return hash(Bfloat)


def call_llvm(builder, name: str, result: ir.Type, arguments: list):
    """Call an instruction of LLVM's or of the CPU's by its name, which begins with `llvm.`."""
    known = builder.module.globals.get(f"llvm.{name}")
    kind = ir.FunctionType(result, [one.type for one in arguments])
    return builder.call(known or ir.Function(builder.module, kind, f"llvm.{name}"), arguments)


def fma(builder, a, b, c):
    """a * b + c of three vectors, rounded once."""
    return call_llvm(builder, f"fma.v{LANES}f32", VECTOR, [a, b, c])


def load(builder, address, kind: ir.Type = VECTOR, *, align: int = 4):
    """What lies at an address."""
    return builder.load(builder.inttoptr(address, kind.as_pointer()), align=align)


def store(builder, value, address, *, align: int = 4) -> None:
    """Write a value to an address."""
    builder.store(value, builder.inttoptr(address, value.type.as_pointer()), align=align)


def spread(builder, number):
    """A number in every lane."""
    empty = ir.Constant(ir.VectorType(number.type, LANES), ir.Undefined)
    one = builder.insert_element(empty, number, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(one, empty, places([0] * LANES))


def zero() -> ir.Constant:
    return ir.Constant(VECTOR, [ir.Constant(FLOAT, 0.0)] * LANES)


def accumulate(builder, end, step: int, first: list, body: Callable) -> list:
    """For at in range(0, end, step): values = body(at, values), at first `first`; at least one
    turn. Returns the last values."""
    start, loop = builder.block, builder.append_basic_block("loop")
    done = builder.append_basic_block("done")
    builder.branch(loop)
    builder.position_at_end(loop)
    at, values = builder.phi(WORD), [builder.phi(value.type) for value in first]
    after = body(at, values)
    onward = builder.add(at, word(step))
    for value, begin, new in zip([at, *values], [word(0), *first], [onward, *after], strict=True):
        value.add_incoming(begin, start)
        value.add_incoming(new, builder.block)
    builder.cbranch(builder.icmp_signed("<", onward, end), loop, done)
    builder.position_at_end(done)
    return after


def in_steps(builder, count, sizes: Sequence[int], body: Callable) -> None:
    """Call body(at, size) from 0 up to `count`: the largest sizes first, each while there is room
    for it. `count` is a whole number of the last."""
    begin = word(0)
    for size in sizes:
        before, head = builder.block, builder.append_basic_block("head")
        one, done = builder.append_basic_block("one"), builder.append_basic_block("rest")
        builder.branch(head)
        builder.position_at_end(head)
        at = builder.phi(WORD)
        onward = builder.add(at, word(size))
        builder.cbranch(builder.icmp_signed("<=", onward, count), one, done)
        builder.position_at_end(one)
        body(at, size)
        at.add_incoming(begin, before)
        at.add_incoming(onward, builder.block)
        builder.branch(head)
        builder.position_at_end(done)
        begin = at
