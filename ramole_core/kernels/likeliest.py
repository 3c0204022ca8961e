"""The place of the largest number of each row: of equal ones the first, and a NaN counts as larger
than all, as PyTorch has it.

PyTorch's own starts a team of threads for a row as long as a vocabulary, which waits at every token
for the cores on which ours (`team.py`) look for the next call.
"""

import numpy as np
import torch
from torch import Tensor

from ramole_core.kernels.call_args import TILES, WORDS, array, at, take, words_at
from ramole_core.kernels.compiled import DTYPES, kernel
from ramole_core.kernels.team import Kernel

COLUMNS, X, HALF, OUT = range(2, 6)
"""The words of a call, behind the two of every call; a tile is a row, OUT [rows] int64."""
_SIGN, _INF, _MAX = np.int32(0x7FFFFFFF), np.int32(0x7F800000), np.int32(0x7FFFFFFF)


@kernel(inline="always")
def _order(bits, shift):
    """An int32 that is larger for a larger float32 of these bits, and the same for both zeros."""
    bits = np.int32(np.int32(bits) << shift)
    size = np.int32(bits & _SIGN)
    signed = size if bits >= 0 else np.int32(-size)
    return _MAX if size > _INF else signed


@kernel()
def _largest(bits, shift):
    most = np.int32(-_MAX)
    for n in range(len(bits)):
        here = _order(bits[n], shift)
        most = here if here > most else most
    for n in range(len(bits)):
        if _order(bits[n], shift) == most:
            return n
    return 0


def _choose(address):
    words = words_at(address)
    columns = words[COLUMNS]
    out = array(at(words[OUT]), (words[TILES],), np.int64)
    while True:
        row = take(address)
        if row >= words[TILES]:
            return
        if words[HALF]:
            x = array(at(words[X] + 2 * row * columns), (columns,), np.uint16)
            out[row] = _largest(x, np.int32(16))
        else:
            x = array(at(words[X] + 4 * row * columns), (columns,), np.int32)
            out[row] = _largest(x, np.int32(0))


CHOOSE = Kernel(_choose)


def likeliest(logits: Tensor) -> list[int]:
    """The place of the largest of each row of logits [b, v]."""
    if logits.device.type != "cpu" or logits.dtype not in DTYPES or not logits.numel():
        return logits.float().argmax(-1).tolist()
    logits = logits.contiguous()
    out, words = np.zeros(len(logits), np.int64), np.zeros(WORDS, np.int64)
    words[COLUMNS], words[X], words[OUT] = logits.shape[1], logits.data_ptr(), out.ctypes.data
    words[HALF] = logits.dtype == torch.bfloat16
    CHOOSE.run(words, len(logits))
    return out.tolist()
