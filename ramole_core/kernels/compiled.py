"""Compile kernels, and handle bfloat16 in them as its 16 bits."""

from collections.abc import Callable
from inspect import unwrap
from typing import Concatenate, ParamSpec

import numpy as np
import torch
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, overload

from ramole_core.kernels.code_cache import CACHE, kept_here

P = ParamSpec("P")
FAST = {"nogil": True, "boundscheck": False, "error_model": "numpy"}
DTYPES = (torch.float32, torch.bfloat16)
"""Dtypes of activations, weights and adapters."""


def kernel(*, from_python: bool = False, **options):
    """Compile a function, without a test's type checks around it. Unless it is called from Python
    it has no wrapper and is not cached: the code of the `Kernel` that calls it holds its own."""

    def compiled(function):
        inner = {} if from_python else {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
        with kept_here():
            return njit(**FAST, **inner, cache=CACHE and from_python, **options)(unwrap(function))

    return compiled


def instructions(written: Callable[Concatenate[object, P], object]) -> Callable[P, int]:
    """numba's `intrinsic`, called without the context; returns a number or nothing."""
    return intrinsic(written)  # pyright: ignore[reportReturnType]


def view(tensor: torch.Tensor) -> np.ndarray:
    """The tensor's own memory for the kernels; bfloat16 as uint16."""
    return (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


@instructions
def float_of(context, bits):
    """The float32 of these bits."""

    def build(context, builder, signature, args):
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.uint32), build


@instructions
def _bits_of(context, number):
    def build(context, builder, signature, args):
        return builder.bitcast(args[0], ir.IntType(32))

    return types.uint32(types.float32), build


@kernel()
def fill(out, rows, columns, number):
    """out[:rows, :columns] = number. Loops like this one take a hundredth of the time that numba
    needs to compile a slice's assignment."""
    for row in range(rows):
        for j in range(columns):
            out[row, j] = number


@kernel()
def copy_row(out, source, n):
    """out[:n] = source[:n]."""
    for j in range(n):
        out[j] = source[j]


def wide(value) -> np.float32:
    """A number as float32; compiled by its type, in `_wide_of`."""
    raise NotImplementedError("only in kernels")


def put(out, at, number):
    """out[at] = number, rounded to what `out` holds; compiled in `_put_of`."""


@overload(wide, inline="always")
def _wide_of(value):
    if isinstance(value, types.Integer):
        return lambda value: float_of(np.uint32(np.uint32(value) << np.uint32(16)))
    return lambda value: value


@overload(put, inline="always")
def _put_of(out, at, number):
    if isinstance(out.dtype, types.Integer):

        def put(out, at, number):  # to the nearest, ties to even
            bits = _bits_of(number)
            odd = (bits >> np.uint32(16)) & np.uint32(1)
            out[at] = np.uint16((bits + np.uint32(0x7FFF) + odd) >> np.uint32(16))

        return unwrap(put)

    def keep(out, at, number):
        out[at] = number

    return unwrap(keep)
