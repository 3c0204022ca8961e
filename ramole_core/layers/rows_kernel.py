"""The mixing of few tokens on a CPU, compiled: each token meets its own pages and no others.

One call makes a token's gate and weighted units for all modules that share an input, one more adds
a module's update to its output. Nothing is copied together and no adapter of another row is read,
so a row's numbers do not depend on who else is in the batch (Punica's batched gather, arXiv
2310.18547, for a CPU). Products are summed in float32; bfloat16 comes and goes as its 16 bits.
"""

import math
import os
from inspect import unwrap
from pathlib import Path

import numpy as np
import torch
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, overload

from ramole_core.composition.surprise import MOST, TINY

FAST = {
    "nogil": True,
    "cache": os.access(Path(__file__).parent, os.W_OK),
    "boundscheck": False,
    "error_model": "numpy",
}
SUMS = {"reassoc", "contract", "nsz", "arcp"}
"""What the compiler may do to a sum: any order, and multiply and add in one."""
DTYPES = (torch.float32, torch.bfloat16)
TINY, MOST = np.float32(TINY), np.float32(MOST)
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
    x,
    A,
    gram,
    pages,
    slots,
    acts,
    counts,
    asks,
    present,
    fixed,
    bias,
    usual,
    own,
    late,
    first,
    units,
    alpha,
):
    """Weighted units of every token, and the weights.

    x [b, i]; A [s + P, m, i], the routers' rows first; gram [m, s, P]; pages ... own as in
    `batch_mix.Rows`, the group's modules from `first` on; late [m, b, k], scores that no table
    holds, or of size 0. Writes units [m, b, R] and alpha [m, b, k].
    """
    b, i = x.shape
    m, s = gram.shape[0], gram.shape[1]
    wide = np.empty(i, np.float32)
    q = np.empty(max(s, 1), np.float32)
    score = np.empty(max(alpha.shape[2], 1), np.float32)
    for row in range(b):
        R, k = counts[row, 0], counts[row, 1]
        mode, start, rank = asks[row, 0], asks[row, 1], asks[row, 2]
        if R == 0:
            continue
        for n in range(i):
            wide[n] = _wide(x[row, n])
        for j in range(m):
            for c in range(R):
                units[j, row, c] = _dot(A[s + pages[row, c], j], wide)
            weight = alpha[j, row]
            if mode == 0:
                for c in range(k):
                    weight[c] = fixed[first + j, row, c]
            else:
                for c in range(rank):
                    q[c] = _dot(A[start + c, j], wide)
                score[:k] = 0
                if own[row] != 0:
                    for c in range(R):
                        if slots[row, c] < k:
                            score[slots[row, c]] += units[j, row, c] * units[j, row, c]
                    _surprise(score, usual[first + j, row], present[first + j, row], own[row], k)
                for c in range(k):
                    score[c] += fixed[first + j, row, c]
                if late.shape[0] > 0:
                    for c in range(k):
                        score[c] += late[j, row, c]
                if rank > 0:
                    for c in range(R):
                        if slots[row, c] < k:
                            response = np.float32(0)
                            for n in range(rank):
                                response += q[n] * gram[j, start + n, pages[row, c]]
                            score[slots[row, c]] += response * units[j, row, c]
                _weights(score, present[first + j, row], weight, k, asks[row])
                for c in range(k):
                    if present[first + j, row, c]:
                        weight[c] += bias[first + j, row, c]
            for c in range(R):
                if acts[row, c] != 0:
                    units[j, row, c] = _activate(units[j, row, c], acts[row, c])
                if slots[row, c] < k:
                    units[j, row, c] *= weight[slots[row, c]]


@kernel(**FAST)
def _activate(u, act):
    """The activations of `batch_mix.ACTIVATIONS`: gelu as torch's own, relu."""
    if act == 1:
        wide = np.float64(u)
        return np.float32(0.5 * wide * (1.0 + math.erf(wide * 0.7071067811865476)))
    return max(u, np.float32(0))


@kernel(**FAST)
def _surprise(score, usual, present, own, k):
    """score [k]: from |v|^2 of each adapter to what its surprise adds.

    |v|^2 is the sum of squared units, because B's columns are orthonormal (`units.pack_units`).
    """
    for c in range(k):
        if not present[c]:
            score[c] = 0
            continue
        z = (np.float32(0.5) * np.log(score[c] + TINY) - usual[c, 0]) * usual[c, 1]
        score[c] = own * min(max(z, -MOST), MOST)


@kernel(**FAST)
def _weights(score, present, weight, k, asks):
    """Softmax over the best of the adapters that take part, or their scores; 0 for the others."""
    keep, top, raw = asks[0] == 2, asks[3], asks[4] != 0
    chosen = k if top == 0 else min(top, k)
    for c in range(k):
        weight[c] = 0 if present[c] or keep else -1
    if chosen < k:  # mark all but the `chosen` best; of equal ones the first is the better
        for c in range(k):
            if weight[c] == 0:
                better = 0
                for d in range(k):
                    if (present[d] or keep) and (
                        score[d] > score[c] or (score[d] == score[c] and d < c)
                    ):
                        better += 1
                if better >= chosen:
                    weight[c] = -1
    most = np.float32(-np.inf)
    for c in range(k):
        if weight[c] == 0 and score[c] > most:
            most = score[c]
    total = np.float32(0)
    for c in range(k):
        if weight[c] < 0:
            weight[c] = 0
        elif raw:
            weight[c] = score[c]
        else:
            weight[c] = np.exp(score[c] - most)
        total += weight[c]
    for c in range(k):
        if not present[c]:
            weight[c] = 0
        elif not raw:
            weight[c] = weight[c] / total if total > 0 else np.float32(0)


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
    none, asks, acts = (np.zeros((1, n), kind) for n, kind in ((2, "i4"), (5, "i4"), (1, "i1")))
    tables = whole, whole, acts, none, asks, one > 0, one, one, one[..., None], one[0, 0]
    weigh(x, A, one, *tables, one, 0, one, one)
    add(x, one[0], B, whole, none)
