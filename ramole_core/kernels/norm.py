"""y = w * x / sqrt(mean(x^2) + eps), row by row (RMSNorm, arXiv 1910.07467).

As transformers computes it: the quotient is rounded to the dtype of x, and the product again.
The length |y| of some rows is the root of the same sum of squares.
"""

import numpy as np
import torch
from torch import Tensor

from ramole_core.kernels.call_args import TILES, WORDS, floats, halves, ints, take, words_at
from ramole_core.kernels.compiled import kernel, put, wide
from ramole_core.kernels.team import Kernel

N, I, X, HALF, WEIGHT, Y, EPSILON, AT = range(2, 10)
"""The words of a call, behind the two of every call; of WEIGHT, EPSILON and AT the addresses."""
ROWS, LENGTHS = 16, 64
"""Rows of a tile, that are normalised or measured."""


@kernel(fastmath={"reassoc", "contract"})
def squares(x):
    """The sum of squares: one function for every row, so one order."""
    total = np.float32(0)
    for n in range(x.shape[0]):
        total += wide(x[n]) * wide(x[n])
    return total


@kernel()
def _row(x, weight, epsilon, y):
    scale = np.float32(1) / np.sqrt(squares(x) / np.float32(x.shape[0]) + epsilon)
    for n in range(x.shape[0]):
        put(y, n, wide(x[n]) * scale)
    for n in range(x.shape[0]):
        put(y, n, weight[n] * wide(y[n]))


def _normalise(address):
    words = words_at(address)
    n, i = words[N], words[I]
    weight, epsilon = floats(words[WEIGHT], 1, i)[0], floats(words[EPSILON], 1, 1)[0, 0]
    while True:
        tile = take(address)
        if tile >= words[TILES]:
            return
        for row in range(tile * ROWS, min(n, (tile + 1) * ROWS)):
            if words[HALF]:
                x, y = words[X] + 2 * row * i, words[Y] + 2 * row * i
                _row(halves(x, 1, i)[0], weight, epsilon, halves(y, 1, i)[0])
            else:
                x, y = words[X] + 4 * row * i, words[Y] + 4 * row * i
                _row(floats(x, 1, i)[0], weight, epsilon, floats(y, 1, i)[0])


NORMALISE = Kernel(_normalise)


class Norm:
    """An RMSNorm with its weight [i]."""

    def __init__(self, weight: Tensor, epsilon: float):
        self._weight = weight.detach().float().contiguous()
        self._epsilon = np.array([epsilon], np.float32)
        words = self._words = np.zeros(WORDS, np.int64)
        words[I], words[WEIGHT] = len(weight), self._weight.data_ptr()
        words[EPSILON] = self._epsilon.ctypes.data

    def of(self, x: Tensor) -> Tensor:
        """x [..., i] in float32 or bfloat16, normalised, in its dtype."""
        x = x.contiguous()
        y, words = torch.empty_like(x), self._words
        n = x.numel() // x.shape[-1]
        words[N], words[X], words[Y] = n, x.data_ptr(), y.data_ptr()
        words[HALF] = x.dtype == torch.bfloat16
        NORMALISE.run(words, -(-n // ROWS))
        return y


def _measure(address):
    words = words_at(address)
    n, i = words[N], words[I]
    at, out = ints(words[AT], 1, n)[0], floats(words[Y], 1, n)[0]
    while True:
        tile = take(address)
        if tile >= words[TILES]:
            return
        for t in range(tile * LENGTHS, min(n, (tile + 1) * LENGTHS)):
            if words[HALF]:
                out[t] = np.sqrt(squares(halves(words[X] + 2 * at[t] * i, 1, i)[0]))
            else:
                out[t] = np.sqrt(squares(floats(words[X] + 4 * at[t] * i, 1, i)[0]))


MEASURE = Kernel(_measure)


class Lengths:
    """Lengths of the same tokens in many tensors; `at` [n] int32 are their rows."""

    def __init__(self, at: np.ndarray, tensors: int):
        self.found = np.zeros((tensors, len(at)), np.float32)
        """|y| of each tensor, 0 where none was measured."""
        self._at, self._tiles = at, -(-len(at) // LENGTHS)
        words = self._words = np.zeros(WORDS, np.int64)
        words[N], words[AT], words[TILES] = len(at), at.ctypes.data, 1
        self._address, self._out = words.ctypes.data, self.found.ctypes.data

    def measure(self, number: int, y: Tensor) -> None:
        """|y| of a tensor [..., o] in float32 or bfloat16, whose tokens stand side by side."""
        y, words = y if y.is_contiguous() else y.contiguous(), self._words
        words[I], words[X], words[HALF] = y.shape[-1], y.data_ptr(), y.dtype == torch.bfloat16
        words[Y] = self._out + 4 * number * len(self._at)
        if self._tiles == 1:  # a step that decodes: a call costs more than what it computes
            MEASURE.run_one(words, self._address)
        else:
            MEASURE.run(words, self._tiles)
