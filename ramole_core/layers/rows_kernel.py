"""The mixing of few tokens on a CPU, compiled: each token meets its own pages and no others.

One call makes a token's gate and weighted units for all modules that share an input, one more adds
a module's update to its output. Nothing is copied together and no adapter of another row is read,
so a row's numbers do not depend on who else is in the batch (Punica's batched gather, arXiv
2310.18547, for a CPU). Products are summed in float32; bfloat16 comes and goes as its 16 bits.
"""

import os
from inspect import unwrap
from pathlib import Path

import numpy as np
import torch
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, overload

from ramole_core.layers import surprise

FAST = {
    "nogil": True,
    "cache": os.access(Path(__file__).parent, os.W_OK),
    "boundscheck": False,
    "error_model": "numpy",
}
SUMS = {"reassoc", "contract", "nsz", "arcp"}
"""What the compiler may do to a sum: any order, and multiply and add in one."""
DTYPES = (torch.float32, torch.bfloat16)
TINY, MOST = np.float32(surprise.TINY), np.float32(surprise.MOST)
AT_ONCE = 4
"""Pages whose columns are added in one walk over an output."""


def kernel(**options):
    """Compile a function as it stands in the source, whatever checks a test has wrapped it in."""
    return lambda function: njit(**options)(unwrap(function))


def view(tensor: torch.Tensor) -> np.ndarray:
    """The tensor's own memory for the kernels; bfloat16 as uint16."""
    return (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


@intrinsic
def _float_of(context, bits):
    def build(context, builder, signature, args):
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.uint32), build


@intrinsic
def _bits_of(context, number):
    def build(context, builder, signature, args):
        return builder.bitcast(args[0], ir.IntType(32))

    return types.uint32(types.float32), build


def _wide(value):
    """A number as float32; what it does is compiled by the kind of number, in `_wide_of`."""


def _put(out, at, number):
    """out[at] = number, rounded to what `out` holds; compiled in `_put_of`."""


@overload(_wide, inline="always")
def _wide_of(value):
    if isinstance(value, types.Integer):
        return lambda value: _float_of(np.uint32(np.uint32(value) << np.uint32(16)))  # pyright: ignore
    return lambda value: value


@overload(_put, inline="always")
def _put_of(out, at, number):
    if isinstance(out.dtype, types.Integer):

        def put(out, at, number):  # to the nearest, ties to even
            bits = _bits_of(number)  # pyright: ignore
            odd = (bits >> np.uint32(16)) & np.uint32(1)
            out[at] = np.uint16((bits + np.uint32(0x7FFF) + odd) >> np.uint32(16))

        return unwrap(put)

    def keep(out, at, number):
        out[at] = number

    return unwrap(keep)


@kernel(fastmath=SUMS, **FAST)
def _dot(row, x):
    total = np.float32(0)
    for n in range(x.shape[0]):
        total += _wide(row[n]) * x[n]
    return total


@kernel(fastmath=SUMS, **FAST)
def weigh(
    x, A, gram, pages, slots, counts, asks, present, fixed, usual, gains, first, votes, units, alpha
):
    """Weighted units of every token, and the weights.

    x [b, i]; A [s + P, m, i], the routers' rows first; gram [m, s, P]; pages, slots [b, R]: each
    token's pages and the place of their adapter among its own; counts [b, 2]: its pages and its
    adapters; asks [b, 3]: first row and rank of its router, and 0 where `fixed` holds, 1 where a
    gate decides, 2 where those that lack the module keep their share; present, fixed
    [modules, b, k], usual [modules, b, k, 2], the group's modules from `first` on. In a gated row
    `fixed` is added to the scores, and what gains [b, 2] make of the surprise here and in the
    layers below; votes [2, 2, b, k] are sum and number of the latter, and of this layer's own,
    which grow. Writes units [m, b, R] and alpha [m, b, k].
    """
    b, i = x.shape
    m, s = gram.shape[0], gram.shape[1]
    wide = np.empty(i, np.float32)
    q = np.empty(max(s, 1), np.float32)
    score = np.empty(max(alpha.shape[2], 1), np.float32)
    for row in range(b):
        R, k = counts[row, 0], counts[row, 1]
        start, rank, gated = asks[row, 0], asks[row, 1], asks[row, 2]
        if R == 0:
            continue
        for n in range(i):
            wide[n] = _wide(x[row, n])
        for j in range(m):
            for c in range(R):
                units[j, row, c] = _dot(A[s + pages[row, c], j], wide)
            weight = alpha[j, row]
            if gated == 0:
                for c in range(k):
                    weight[c] = fixed[first + j, row, c]
            else:
                for c in range(rank):
                    q[c] = _dot(A[start + c, j], wide)
                score[:k] = 0
                if gains[row, 0] != 0 or gains[row, 1] != 0:
                    for c in range(R):
                        score[slots[row, c]] += units[j, row, c] * units[j, row, c]
                    _surprise(
                        score,
                        usual[first + j, row],
                        present[first + j, row],
                        gains[row],
                        votes[:, :, row],
                        k,
                    )
                for c in range(k):
                    score[c] += fixed[first + j, row, c]
                for c in range(R):
                    response = np.float32(0)
                    for n in range(rank):
                        response += q[n] * gram[j, start + n, pages[row, c]]
                    score[slots[row, c]] += response * units[j, row, c]
                _softmax(score, present[first + j, row], weight, k, gated == 2)
            for c in range(R):
                units[j, row, c] *= weight[slots[row, c]]


@kernel(**FAST)
def _surprise(score, usual, present, gains, votes, k):
    """score [k]: from |v|^2 of each adapter to what its surprise adds; the layer's votes grow.

    |v|^2 is the sum of squared units, because B's columns are orthonormal (`units.pack_units`).
    """
    for c in range(k):
        below = votes[0, 0, c] / votes[0, 1, c] if votes[0, 1, c] > 0 else np.float32(0)
        if not present[c]:
            score[c] = gains[1] * below
            continue
        z = (np.float32(0.5) * np.log(score[c] + TINY) - usual[c, 0]) * usual[c, 1]
        z = min(max(z, -MOST), MOST)
        score[c] = gains[0] * z + gains[1] * below
        votes[1, 0, c] += z
        votes[1, 1, c] += 1


@kernel(**FAST)
def _softmax(score, present, weight, k, keep):
    """Over the adapters that have the module, or (`keep`) over all; 0 for those that lack it."""
    most = np.float32(-np.inf)
    for c in range(k):
        if (present[c] or keep) and score[c] > most:
            most = score[c]
    total = np.float32(0)
    for c in range(k):
        weight[c] = np.exp(score[c] - most) if present[c] or keep else np.float32(0)
        total += weight[c]
    if total > 0:
        for c in range(k):
            weight[c] = weight[c] / total if present[c] else np.float32(0)


@kernel(fastmath=SUMS, **FAST)
def add(y, units, B, pages, counts):
    """y [b, o] += units [b, R] times each token's pages of B [P, o], in place."""
    b, o = y.shape
    sums = np.empty(o, np.float32)
    for row in range(b):
        R = counts[row, 0]
        if R == 0:
            continue
        for n in range(o):
            sums[n] = _wide(y[row, n])
        c = 0
        while c + AT_ONCE <= R:
            u0, u1, u2, u3 = units[row, c], units[row, c + 1], units[row, c + 2], units[row, c + 3]
            B0, B1 = B[pages[row, c]], B[pages[row, c + 1]]
            B2, B3 = B[pages[row, c + 2]], B[pages[row, c + 3]]
            for n in range(o):
                sums[n] += (
                    u0 * _wide(B0[n]) + u1 * _wide(B1[n]) + u2 * _wide(B2[n]) + u3 * _wide(B3[n])
                )
            c += AT_ONCE
        while c < R:
            u0, B0 = units[row, c], B[pages[row, c]]
            for n in range(o):
                sums[n] += u0 * _wide(B0[n])
            c += 1
        for n in range(o):
            _put(y[row], n, sums[n])


def compile_for(dtype: torch.dtype) -> None:
    """Compile now what the first request would wait for: seconds once, then read from a cache."""
    x, A, B = (view(torch.zeros(shape, dtype=dtype)) for shape in ((1, 1), (1, 1, 1), (1, 1)))
    whole, one = np.zeros((1, 1), np.int32), np.zeros((1, 1, 1), np.float32)
    none, asks = np.zeros((1, 2), np.int32), np.zeros((1, 3), np.int32)
    usual, gains, votes = one[..., None], one[0], np.zeros((2, 2, 1, 1), np.float32)
    weigh(x, A, one, whole, whole, none, asks, one > 0, one, usual, gains, 0, votes, one, one)
    add(x, one[0], B, whole, none)
