"""Kernels on PyTorch's own threads: one call, and the threads take its tiles in turn.

A second pool beside PyTorch's would fight with it for the cores, because OpenMP's threads spin for
a while before they sleep. So a kernel is run by the very OpenMP library that PyTorch has loaded;
where that is another one, by the calling thread alone.
"""

import ctypes
from collections.abc import Callable
from functools import cache, cached_property
from inspect import unwrap
from pathlib import Path

import numpy as np
import torch
from llvmlite import ir
from numba import carray, cfunc, types
from numba.extending import intrinsic

from ramole_core.kernels.compiled import CACHE, kernel

COUNTER, TILES = 0, 1
"""The first two words of every call: the next tile, and how many there are."""
WORDS = 40
"""Words of a call."""
_ENTRY = ctypes.CFUNCTYPE(None, ctypes.c_int64)


class Kernel:
    """A function of one call's words, which takes tiles until none is left."""

    def __init__(self, function: Callable):
        self._function = unwrap(function)
        self.__doc__ = function.__doc__

    @cached_property
    def _entry(self):
        """Compiled on first use, or read from numba's cache."""
        signature = types.void(types.int64)  # an address
        return cfunc(signature, nopython=True, cache=CACHE)(self._function)

    @cached_property
    def _address(self) -> int:
        return int(self._entry.address)

    @cached_property
    def _alone(self) -> Callable[[int], None]:
        return _ENTRY(self._address)

    def compile(self) -> None:
        """Now, so that the first request does not wait for it."""
        _ = self._address

    def run(self, words: np.ndarray, tiles: int) -> None:
        """Run the tiles; `words` is an int64 array of WORDS that nobody else uses meanwhile."""
        words[COUNTER], words[TILES] = 0, tiles
        threads = min(torch.get_num_threads(), tiles)
        start = _parallel()
        if threads > 1 and start is not None:
            start(self._address, words.ctypes.data, threads, 0)
        else:
            self._alone(words.ctypes.data)


@cache
def _parallel() -> Callable[[int, int, int, int], None] | None:
    """OpenMP's way to run a function on its threads; None where PyTorch brought no such library."""
    here = Path(torch.__file__).parent
    for folder in (here / "lib", here.parent / "torch.libs"):
        for file in sorted(folder.glob("lib*omp*.so*")):
            start = getattr(ctypes.CDLL(str(file)), "GOMP_parallel", None)
            if start is not None:
                start.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
                start.restype = None
                return start
    return None


@intrinsic
def take(context, words):
    """The next tile of the call whose words lie at this address."""

    def build(context, builder, signature, args):
        place = builder.inttoptr(args[0], ir.IntType(64).as_pointer())
        return builder.atomic_rmw("add", place, ir.Constant(ir.IntType(64), 1), "monotonic")

    return types.int64(types.int64), build


@intrinsic
def _at(context, address):
    def build(context, builder, signature, args):
        return builder.inttoptr(args[0], context.get_value_type(types.voidptr))

    return types.voidptr(types.int64), build


@kernel()
def words_at(address):
    """The words of the call that begins at this address."""
    return carray(_at(address), (WORDS,), np.int64)


@kernel()
def floats(address, rows, columns):
    """float32 [rows, columns] at an address."""
    return carray(_at(address), (rows, columns), np.float32)


@kernel()
def halves(address, rows, columns):
    """bfloat16, as its bits, [rows, columns] at an address."""
    return carray(_at(address), (rows, columns), np.uint16)


@kernel()
def bytes_at(address, rows, columns):
    """uint8 [rows, columns] at an address."""
    return carray(_at(address), (rows, columns), np.uint8)


@kernel()
def ints(address, rows, columns):
    """int32 [rows, columns] at an address."""
    return carray(_at(address), (rows, columns), np.int32)
