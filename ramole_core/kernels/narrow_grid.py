"""Weights into int4: sixteen even steps above a least number, for every 32 weights.

llama.cpp's Q4_1 has the same grid and as many bits, with float16 in the place of bfloat16 for steps
and least numbers. Codes are rounded between a group's extremes; step and least number are then
those that come nearest to the weights (least squares), so a base that was published on such a grid
is nearly found again.
"""

import numpy as np
import torch
from torch import Tensor

from ramole_core.kernels.call_args import TILES, WORDS, bytes_at, floats, halves, take, words_at
from ramole_core.kernels.compiled import DTYPES, copy_row, kernel, put, wide
from ramole_core.kernels.team import Kernel
from ramole_core.kernels.widen import BLOCK, GROUP

N, X, HALF, CODES, GRID = range(2, 7)
"""The words of a call, behind the two of every call; N: groups."""
TILE = 512
"""Groups of a tile."""


@kernel()
def _codes_of(x, step, least, codes):
    """codes [GROUP], the nearest."""
    for n in range(GROUP):
        codes[n] = min(max(np.rint((x[n] - least) / step), 0.0), 15.0)


@kernel()
def _narrow_group(x, codes, packed, grid):
    """packed [GROUP / 2] and grid [2] of x [GROUP]; codes [GROUP] is room."""
    least, most = x[0], x[0]
    for n in range(GROUP):
        least, most = min(least, x[n]), max(most, x[n])
    for n in range(GROUP // 2):
        packed[n] = 0
    step = (np.float64(most) - least) / 15
    put(grid, 0, np.float32(0))
    put(grid, 1, least)
    if step <= 0:
        return
    _codes_of(x, step, least, codes)
    of_codes, of_squares, of_x, of_both = 0.0, 0.0, 0.0, 0.0
    for n in range(GROUP):
        of_codes += codes[n]
        of_squares += codes[n] * codes[n]
        of_x += x[n]
        of_both += codes[n] * x[n]
    step = (GROUP * of_both - of_codes * of_x) / (GROUP * of_squares - of_codes * of_codes)
    put(grid, 0, np.float32(step))
    step = wide(grid[0])
    put(grid, 1, np.float32((of_x - step * of_codes) / GROUP))
    if step > 0:
        _codes_of(x, step, wide(grid[1]), codes)
    for n in range(GROUP):
        packed[n // 2] |= np.uint8(codes[n]) << (4 if n % 2 == 0 else 0)


def _narrow(pointer):
    words = words_at(pointer)
    x, room = np.empty(GROUP, np.float32), np.empty(GROUP)
    while True:
        tile = take(pointer)
        if tile >= words[TILES]:
            return
        for group in range(tile * TILE, min(words[N], (tile + 1) * TILE)):
            if words[HALF]:
                source = halves(words[X] + 2 * group * GROUP, 1, GROUP)[0]
                for n in range(GROUP):
                    x[n] = wide(source[n])
            else:
                copy_row(x, floats(words[X] + 4 * group * GROUP, 1, GROUP)[0], GROUP)
            codes = bytes_at(words[CODES] + group * (GROUP // 2), 1, GROUP // 2)[0]
            _narrow_group(x, room, codes, halves(words[GRID] + 4 * group, 1, 2)[0])


NARROW_TO_GRID = Kernel(_narrow)


def narrowed_to_grid(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Codes [o, i / 2] (uint8, the even weight in the high half) and grid [o, i / GROUP, 2]
    (bfloat16, step and least number) of a weight [o, i] of float32 or bfloat16 on the CPU, i in
    whole blocks of BLOCK."""
    o, i = weight.shape
    if i % BLOCK or weight.dtype not in DTYPES:
        raise ValueError(f"{tuple(weight.shape)} of {weight.dtype} has no whole blocks of {BLOCK}")
    weight = weight.detach().contiguous()
    codes = torch.empty(o, i // 2, dtype=torch.uint8)
    grid = torch.empty(o, i // GROUP, 2, dtype=torch.bfloat16)
    groups = o * i // GROUP
    words = np.zeros(WORDS, np.int64)
    words[N], words[X], words[HALF] = groups, weight.data_ptr(), weight.dtype != torch.float32
    words[CODES], words[GRID] = codes.data_ptr(), grid.data_ptr()
    NARROW_TO_GRID.run(words, -(-groups // TILE))
    return codes, grid


def on_grid(codes: Tensor, grid: Tensor) -> Tensor:
    """The weight [o, i] in float32 that codes and grid stand for."""
    found = torch.stack([codes >> 4, codes & 15], -1).flatten(1).float()
    step, least = grid.float().unbind(-1)
    return (found.view(len(codes), -1, GROUP) * step[..., None] + least[..., None]).flatten(1)
