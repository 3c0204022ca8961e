"""W x of gates: each token by the W of its own request, summed in the order of `dots`."""

import numpy as np

from ramole_core.kernels.call_args import TILES, array, at, ints, take, words_at
from ramole_core.kernels.dots import COLUMNS, dots
from ramole_core.kernels.team import Kernel

X, X_ROW, RUNS, WEIGHTS, SIZES, OUT, OUT_ROW = range(2, 9)
"""The words of a call, behind the two of every call: x [N, X_ROW]; RUNS [TILES, 3] int32 are row,
first token, tokens; WEIGHTS [rows] int64 are the addresses of each row's W [k, X_ROW] in float32, k
rounded up to COLUMNS, 0: none; SIZES [rows] int64 its k; OUT [N, OUT_ROW]."""


def _score(address):
    words = words_at(address)
    x_row, out_row = words[X_ROW], words[OUT_ROW]
    while True:
        tile = take(address)
        if tile >= words[TILES]:
            return
        run = ints(words[RUNS] + 12 * tile, 1, 3)[0]
        row, start, tokens = run[0], run[1], run[2]
        w = array(at(words[WEIGHTS] + 8 * row), (1,), np.int64)[0]
        if w == 0:
            continue
        k = array(at(words[SIZES] + 8 * row), (1,), np.int64)[0]
        x, out = words[X] + 4 * start * x_row, words[OUT] + 4 * start * out_row
        for first in range(0, k, COLUMNS):
            part = w + 4 * first * x_row
            dots(x, x_row, tokens, part, x_row, x_row, out + 4 * first, out_row)


SCORE = Kernel(_score)
