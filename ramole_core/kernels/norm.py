"""y = w * x / sqrt(mean(x^2) + eps), row by row (RMSNorm, arXiv 1910.07467).

As transformers computes it: the quotient is rounded to the dtype of x, and the product again.
"""

import numpy as np
import torch
from torch import Tensor

from ramole_core.kernels.call_args import TILES, WORDS, floats, halves, take, words_at
from ramole_core.kernels.compiled import kernel, put, wide
from ramole_core.kernels.team import Kernel

N, I, X, HALF, WEIGHT, Y, EPSILON = range(2, 9)
"""The words of a call, behind the two of every call; epsilon's address."""
ROWS = 16
"""Rows of a tile."""


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
