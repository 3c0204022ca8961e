"""Sums, products, negatives and copies of single numbers, of any strides: exact operations, each
rounded once, as PyTorch does them.

For what stands between the other kernels of a step that is replayed (`program.py`).
"""

import numpy as np
import torch
from torch import Tensor

from ramole_core.kernels.call_args import OWN, TILES, WORDS, floats, halves, take, words_at
from ramole_core.kernels.compiled import kernel, put, wide
from ramole_core.kernels.team import Kernel
from ramole_core.kernels.threads import thread_count

ADD, MULTIPLY, NEGATE, COPY = range(4)
DIMS = 4
(KIND, HALF, ROWS, A, B, OUT) = range(2, 8)
SIZES, OF_A, OF_B, OF_OUT = 8, 12, 16, 20
"""The words of a call, of these the first of DIMS; strides in numbers, 0 where one number serves
many."""
TILE_NUMBERS = 4096
"""Numbers of a tile, about."""


@kernel()
def _row(kind, n, a, of_a, b, of_b, out, of_out):
    """One row of n numbers; arrays and the steps in them."""
    if of_a == 1 and of_out == 1 and of_b == 1:
        if kind == ADD:
            for j in range(n):
                put(out, j, wide(a[j]) + wide(b[j]))
        elif kind == MULTIPLY:
            for j in range(n):
                put(out, j, wide(a[j]) * wide(b[j]))
        elif kind == NEGATE:
            for j in range(n):
                put(out, j, -wide(a[j]))
        else:
            for j in range(n):
                out[j] = a[j]
        return
    for j in range(n):
        at = j * of_out
        if kind == ADD:
            put(out, at, wide(a[j * of_a]) + wide(b[j * of_b]))
        elif kind == MULTIPLY:
            put(out, at, wide(a[j * of_a]) * wide(b[j * of_b]))
        elif kind == NEGATE:
            put(out, at, -wide(a[j * of_a]))
        else:
            out[at] = a[j * of_a]


def _points(address):
    words = words_at(address)
    kind, half, rows, n = words[KIND], words[HALF], words[ROWS], words[SIZES + 3]
    size = 2 if half else 4
    a_step, b_step, out_step = words[OF_A + 3], words[OF_B + 3], words[OF_OUT + 3]
    a_end, b_end = (n - 1) * a_step + 1, (n - 1) * b_step + 1
    out_end = (n - 1) * out_step + 1
    while True:
        tile = take(address)
        if tile >= words[TILES]:
            return
        for row in range(tile * rows, min((tile + 1) * rows, _rows(words))):
            left, a, b, out = row, words[A], words[B], words[OUT]
            for dim in (2, 1, 0):
                at = left % words[SIZES + dim]
                left //= words[SIZES + dim]
                a += size * at * words[OF_A + dim]
                b += size * at * words[OF_B + dim]
                out += size * at * words[OF_OUT + dim]
            if half:
                x, y, z = halves(a, 1, a_end)[0], halves(b, 1, b_end)[0], halves(out, 1, out_end)[0]
                _row(kind, n, x, a_step, y, b_step, z, out_step)
            else:
                x, y, z = floats(a, 1, a_end)[0], floats(b, 1, b_end)[0], floats(out, 1, out_end)[0]
                _row(kind, n, x, a_step, y, b_step, z, out_step)


@kernel()
def _rows(words):
    return words[SIZES] * words[SIZES + 1] * words[SIZES + 2]


POINTS = Kernel(_points)


def words_of(kind: int, out: Tensor, a: Tensor, b: Tensor | None = None) -> np.ndarray | None:
    """The words of out = a (kind) b, in float32 or bfloat16; None: too many dimensions, or mixed
    types."""
    b = a if b is None else b
    known = out.dtype in (torch.float32, torch.bfloat16)
    if not known or not a.dtype == b.dtype == out.dtype or out.ndim > DIMS or not out.numel():
        return None
    less = DIMS - out.ndim
    shape = [1] * less + list(out.shape)
    words = [0] * WORDS  # filled as a list: each number put into an array costs as much as ten
    words[KIND], words[HALF] = kind, int(out.dtype == torch.bfloat16)
    words[A], words[B], words[OUT] = a.data_ptr(), b.data_ptr(), out.data_ptr()
    words[SIZES : SIZES + DIMS] = shape
    for first, tensor in ((OF_A, a), (OF_B, b), (OF_OUT, out)):
        wide = tensor if tensor.shape == out.shape else tensor.expand(out.shape)
        words[first + less : first + DIMS] = wide.stride()
    words[ROWS] = max(1, TILE_NUMBERS // shape[3])
    words[TILES] = -(-shape[0] * shape[1] * shape[2] // words[ROWS])
    words[OWN] = -(-words[TILES] // thread_count())
    return np.array(words, np.int64)
