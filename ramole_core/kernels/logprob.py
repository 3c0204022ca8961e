"""The log probability of one given token of each row of logits:

    log p(t) = x_t - m - log Z,    m = max x,  Z = sum exp(x - m)

in float32, whatever the logits are; only these numbers are kept. The running softmax of
`softmax.py` takes a row 64 numbers at a time, so no other row changes its bits.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ramole_core.kernels.call_args import TILES, WORDS, array, at, floats, take, words_at
from ramole_core.kernels.compiled import DTYPES, kernel, wide
from ramole_core.kernels.softmax import BLOCK, soften
from ramole_core.kernels.team import Kernel

COLUMNS, X, HALF, TOKENS, OUT = range(2, 7)
"""The words of a call, behind the two of every call; a tile is a row, TOKENS [rows] int64, OUT
[rows] float32."""


@kernel()
def _logprob(x, token, block, state):
    """The same of a row x; `block` [BLOCK] and `state` [2] are room for the running softmax."""
    state[0], state[1] = -np.inf, 0
    scores, most = np.int64(block.ctypes.data), np.int64(state.ctypes.data)
    for start in range(0, len(x), BLOCK):
        count = min(BLOCK, len(x) - start)
        for n in range(count):
            block[n] = wide(x[start + n])
        soften(scores, 0, count, most, most + 4)
    return np.float32(np.float64(wide(x[token])) - state[0] - math.log(np.float64(state[1])))


def _measure(address):
    words = words_at(address)
    columns, rows = words[COLUMNS], words[TILES]
    tokens = array(at(words[TOKENS]), (rows,), np.int64)
    out = floats(words[OUT], 1, rows)[0]
    block, state = np.empty(BLOCK, np.float32), np.empty(2, np.float32)
    while True:
        row = take(address)
        if row >= rows:
            return
        if words[HALF]:
            x = array(at(words[X] + 2 * row * columns), (columns,), np.uint16)
            out[row] = _logprob(x, tokens[row], block, state)
        else:
            x = array(at(words[X] + 4 * row * columns), (columns,), np.float32)
            out[row] = _logprob(x, tokens[row], block, state)


MEASURE_LOGPROBS = Kernel(_measure)


def token_logprobs(logits: Tensor, tokens: Sequence[int]) -> list[float]:
    """The log probability of a token under each row of logits [b, v], in nats."""
    if not len(tokens):
        return []
    if logits.device.type != "cpu" or logits.dtype not in DTYPES:
        given = torch.tensor(list(tokens), device=logits.device)[:, None]
        return logits.float().log_softmax(-1).gather(-1, given)[:, 0].tolist()
    logits = logits.contiguous()
    out, words = np.zeros(len(logits), np.float32), np.zeros(WORDS, np.int64)
    given = np.array(tokens, np.int64)
    words[COLUMNS], words[X], words[HALF] = (
        logits.shape[1],
        logits.data_ptr(),
        logits.dtype == torch.bfloat16,
    )
    words[TOKENS], words[OUT] = given.ctypes.data, out.ctypes.data
    MEASURE_LOGPROBS.run(words, len(logits))
    return out.tolist()
