"""The argument words of a kernel's call, and views of what they point to.

A call is an array of int64: sizes, and addresses of numbers.
"""

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from llvmlite import ir
from numba import carray, types  # pyright: ignore[reportPrivateImportUsage]

from ramole_core.kernels.compiled import instructions, kernel

if TYPE_CHECKING:
    from ramole_core.kernels.program import Program

COUNTS, TILES, OWN = 0, 1, 40
"""Words of every call: the address of two counts of taken tiles, the caller's and CACHE_LINE bytes
behind it the helpers'; how many tiles there are; and how many of them, the first ones, are the
caller's."""
LOCAL_COUNTS = 41
"""Where the counts of a call without helpers lie."""
CACHE_LINE = 64
"""Bytes of a cache line: threads that write to one wait for each other."""
WORDS = LOCAL_COUNTS + CACHE_LINE // 8 + 1
"""Words of a call."""
HELPER = 1
"""Added to a call's address by a helper."""


@instructions
def at(context, address):
    def build(context, builder, signature, args):
        return builder.inttoptr(args[0], context.get_value_type(types.voidptr))

    return types.voidptr(types.int64), build


array: Callable[[int, tuple[int, ...], type], np.ndarray] = carray  # pyright: ignore


@kernel()
def words_at(address):
    """The words of the call that begins at this address, a helper's or the caller's."""
    return array(at(address & ~HELPER), (WORDS,), np.int64)


@instructions
def _count(context, address, number):
    """Add to the word at an address; its earlier value."""

    def build(context, builder, signature, args):
        place = builder.inttoptr(args[0], ir.IntType(64).as_pointer())
        return builder.atomic_rmw("add", place, args[1], "monotonic")

    return types.int64(types.int64, types.int64), build


@kernel()
def take(address):
    """The next tile of the call at this address; its TILES: none is left.

    A thread takes its own side's tiles in order, so that it reads what it has prefetched, and then
    those of the other side that are left.
    """
    words = words_at(address)
    side, own = address & HELPER, words[OWN]
    for _ in range(2):
        n = _count(words[COUNTS] + CACHE_LINE * side, 1)
        if n < (words[TILES] - own if side else own):
            return n + own * side
        side = 1 - side
    return words[TILES]


def prefetch_at(builder, address) -> None:
    """Prefetch what lies at an address into the second-level cache."""
    kind, number = ir.IntType(8).as_pointer(), ir.IntType(32)
    name = "llvm.prefetch.p0i8"
    known = builder.module.globals.get(name)
    full = ir.FunctionType(ir.VoidType(), [kind, number, number, number])
    how = [ir.Constant(number, n) for n in (0, 2, 1)]  # to read; which cache; data
    place = builder.inttoptr(address, kind)
    builder.call(known or ir.Function(builder.module, full, name), [place, *how])


@instructions
def prefetch(context, address):
    """Prefetch, for use in a kernel."""

    def build(context, builder, signature, args):
        prefetch_at(builder, args[0])
        return context.get_dummy_value()

    return types.void(types.int64), build


@kernel()
def floats(address, rows, columns):
    """float32 [rows, columns] at an address."""
    return array(at(address), (rows, columns), np.float32)


@kernel()
def halves(address, rows, columns):
    """bfloat16, as its bits, [rows, columns] at an address."""
    return array(at(address), (rows, columns), np.uint16)


@kernel()
def bytes_at(address, rows, columns):
    """uint8 [rows, columns] at an address."""
    return array(at(address), (rows, columns), np.uint8)


@kernel()
def longs(address, rows, columns):
    """int64 [rows, columns] at an address."""
    return array(at(address), (rows, columns), np.int64)


@kernel()
def ints(address, rows, columns):
    """int32 [rows, columns] at an address."""
    return array(at(address), (rows, columns), np.int32)


class _Watching(threading.local):
    one: "Program | None" = None


WATCHING = _Watching()
"""`one`: the program that this thread records."""
