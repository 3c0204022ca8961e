"""Round weights to NF4, int4 or int8.

NF4: each block's largest size, and the nearest of sixteen numbers for each weight; bit for bit what
bitsandbytes' `quantize_4bit` writes with blocks of 64 and plain scales, which took a third of a
start on a CPU.

int4: sixteen even steps above a least number, for every GROUP of 32 weights. llama.cpp's Q4_1 has
the same grid and as many bits, with float16 in the place of bfloat16 for steps and least numbers.
Codes are rounded between a group's extremes; step and least number are then those that come nearest
to the weights (least squares), so a base that was published on such a grid is nearly found again.
"""

import numpy as np
import torch
from torch import Tensor

from ramole_core.kernels.call_args import TILES, WORDS, bytes_at, floats, halves, take, words_at
from ramole_core.kernels.compiled import DTYPES, copy_row, kernel, put, wide
from ramole_core.kernels.team import Kernel
from ramole_core.kernels.widen import BLOCK, GROUP, TABLE

N, X, HALF, CODES, SCALES = range(2, 7)
"""The words of a call, behind the two of every call; N: blocks of NF4 or groups of int4."""
TILE = 256
"""Blocks of a tile."""
GROUPS = TILE * BLOCK // GROUP
"""Groups of a tile."""
BOUNDS = (TABLE[:-1] + TABLE[1:]) / np.float32(2)
"""A weight above BOUNDS[n] and not above the next one is nearest to TABLE[n + 1]."""
ROWS = 4096
"""Rows of a weight that are rounded at a time."""
_ONE, _MIN = np.float32(1), np.float32(1e-38)


@kernel(inline="always")
def _code_of(x):
    """The number of bounds below it."""
    code = 8 if x > BOUNDS[7] else 0
    code += 4 if x > BOUNDS[code + 3] else 0
    code += 2 if x > BOUNDS[code + 1] else 0
    return code + (1 if x > BOUNDS[code] else 0)


@kernel()
def _narrow_block(x, codes):
    """codes [BLOCK / 2] of x [BLOCK]; the scale."""
    most = np.float32(0)
    for n in range(BLOCK):
        most = max(most, abs(x[n]))
    inverse = _ONE / max(most, _MIN)
    for n in range(BLOCK // 2):
        codes[n] = _code_of(x[2 * n] * inverse) << 4 | _code_of(x[2 * n + 1] * inverse)
    return most


@kernel()
def _read(words, at, x):
    """x = weights from the `at`-th on."""
    n = len(x)
    if words[HALF]:
        source = halves(words[X] + 2 * at, 1, n)[0]
        for j in range(n):
            x[j] = wide(source[j])
    else:
        copy_row(x, floats(words[X] + 4 * at, 1, n)[0], n)


def _narrow(pointer):
    words = words_at(pointer)
    x = np.empty(BLOCK, np.float32)
    while True:
        tile = take(pointer)
        if tile >= words[TILES]:
            return
        for block in range(tile * TILE, min(words[N], (tile + 1) * TILE)):
            _read(words, block * BLOCK, x)
            codes = bytes_at(words[CODES] + block * (BLOCK // 2), 1, BLOCK // 2)[0]
            floats(words[SCALES] + 4 * block, 1, 1)[0, 0] = _narrow_block(x, codes)


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


def _narrow_to_grid(pointer):
    words = words_at(pointer)
    x, room = np.empty(GROUP, np.float32), np.empty(GROUP)
    while True:
        tile = take(pointer)
        if tile >= words[TILES]:
            return
        for group in range(tile * GROUPS, min(words[N], (tile + 1) * GROUPS)):
            _read(words, group * GROUP, x)
            codes = bytes_at(words[CODES] + group * (GROUP // 2), 1, GROUP // 2)[0]
            _narrow_group(x, room, codes, halves(words[SCALES] + 4 * group, 1, 2)[0])


NARROW, NARROW_TO_GRID = Kernel(_narrow), Kernel(_narrow_to_grid)


def narrowed(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Codes [o, i / 2] (uint8, the even weight in the high half) and scales [o, i / BLOCK]
    (float32) of a weight [o, i] of float32 or bfloat16 on the CPU, i in whole blocks.

    Raises ValueError for another one.
    """
    scales = torch.empty(len(weight), weight.shape[1] // BLOCK)
    return _run(NARROW, weight, scales, scales.numel(), TILE), scales


def narrowed_to_grid(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Codes as of `narrowed`, and grid [o, i / GROUP, 2] (bfloat16, step and least number)."""
    grid = torch.empty(len(weight), weight.shape[1] // GROUP, 2, dtype=torch.bfloat16)
    return _run(NARROW_TO_GRID, weight, grid, grid.numel() // 2, GROUPS), grid


def _run(kernel: Kernel, weight: Tensor, scales: Tensor, n: int, tile: int) -> Tensor:
    """Write `scales` and return the codes; n blocks or groups, `tile` of them a tile."""
    o, i = weight.shape
    if i % BLOCK or weight.dtype not in DTYPES:
        raise ValueError(f"{tuple(weight.shape)} of {weight.dtype} has no whole blocks of {BLOCK}")
    weight = weight.detach().contiguous()
    codes, words = torch.empty(o, i // 2, dtype=torch.uint8), np.zeros(WORDS, np.int64)
    words[N], words[X], words[HALF] = n, weight.data_ptr(), weight.dtype != torch.float32
    words[CODES], words[SCALES] = codes.data_ptr(), scales.data_ptr()
    kernel.run(words, -(-n // tile))
    return codes


def as_numbers(codes: Tensor, scales: Tensor) -> Tensor:
    """The weight [o, i] in float32 that codes and scales stand for."""
    halves_of = torch.stack([codes >> 4, codes & 15], -1).flatten(1).int()
    found = torch.from_numpy(TABLE)[halves_of]
    return (found.view(len(codes), -1, BLOCK) * scales[..., None]).flatten(1)


def on_grid(codes: Tensor, grid: Tensor) -> Tensor:
    """The weight [o, i] in float32 that codes and grid stand for."""
    found = torch.stack([codes >> 4, codes & 15], -1).flatten(1).float()
    step, least = grid.float().unbind(-1)
    return (found.view(len(codes), -1, GROUP) * step[..., None] + least[..., None]).flatten(1)


def rounded_to_bytes(weight: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest int8 numbers [o, i] and their scales [o] of a weight [o, i]: each row's largest
    size is 127."""
    scales = weight.abs().amax(1).float().clamp(min=1e-30) / 127
    numbers = torch.empty(weight.shape, dtype=torch.int8)
    for start in range(0, len(weight), ROWS):  # a head is large, and float32 twice as large
        part = slice(start, start + ROWS)
        numbers[part] = (weight[part].float() / scales[part, None]).round()
    return numbers, scales


def from_bytes(numbers: Tensor, scales: Tensor) -> Tensor:
    """The weight [o, i] in float32 that int8 numbers and their scales stand for."""
    return numbers * scales[:, None]
