"""|y| of some tokens: the root of the sum of squares along each of their rows."""

import numpy as np
import torch
from torch import Tensor

from ramole_core.kernels.call_args import TILES, WORDS, floats, halves, ints, take, words_at
from ramole_core.kernels.norm import squares
from ramole_core.kernels.team import Kernel

N, O, Y, HALF, AT, OUT = range(2, 8)
"""The words of a call, behind the two of every call; AT and OUT are addresses."""
ROWS = 64
"""Rows of a tile."""


def _measure(address):
    words = words_at(address)
    n, o = words[N], words[O]
    at, out = ints(words[AT], 1, n)[0], floats(words[OUT], 1, n)[0]
    while True:
        tile = take(address)
        if tile >= words[TILES]:
            return
        for t in range(tile * ROWS, min(n, (tile + 1) * ROWS)):
            if words[HALF]:
                out[t] = np.sqrt(squares(halves(words[Y] + 2 * at[t] * o, 1, o)[0]))
            else:
                out[t] = np.sqrt(squares(floats(words[Y] + 4 * at[t] * o, 1, o)[0]))


MEASURE = Kernel(_measure)


class Lengths:
    """Lengths of the same tokens in many tensors; `at` [n] int32 are their rows."""

    def __init__(self, at: np.ndarray, tensors: int):
        self.found = np.zeros((tensors, len(at)), np.float32)
        """|y| of each tensor, 0 where none was measured."""
        self._at, self._tiles = at, -(-len(at) // ROWS)
        words = self._words = np.zeros(WORDS, np.int64)
        words[N], words[AT], words[TILES] = len(at), at.ctypes.data, 1
        self._address, self._out = words.ctypes.data, self.found.ctypes.data

    def measure(self, number: int, y: Tensor) -> None:
        """|y| of a tensor [..., o] in float32 or bfloat16, whose tokens stand side by side."""
        y, words = y if y.is_contiguous() else y.contiguous(), self._words
        words[O], words[Y], words[HALF] = y.shape[-1], y.data_ptr(), y.dtype == torch.bfloat16
        words[OUT] = self._out + 4 * number * len(self._at)
        if self._tiles == 1:  # a step that decodes: a call costs more than what it computes
            MEASURE.run_one(words, self._address)
        else:
            MEASURE.run(words, self._tiles)
