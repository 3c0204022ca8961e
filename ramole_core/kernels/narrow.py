"""Weights into NF4: each block's largest size, and the nearest of sixteen numbers for each weight.

Bit for bit what bitsandbytes' `quantize_4bit` writes with blocks of 64 and plain scales, which took
a third of a start on a CPU.
"""

import numpy as np
import torch
from torch import Tensor

from ramole_core.kernels.call_args import TILES, WORDS, bytes_at, floats, halves, take, words_at
from ramole_core.kernels.compiled import DTYPES, copy_row, kernel, wide
from ramole_core.kernels.team import Kernel
from ramole_core.kernels.widen import BLOCK, TABLE

N, X, HALF, CODES, SCALES = range(2, 7)
"""The words of a call, behind the two of every call; N: blocks."""
TILE = 256
"""Blocks of a tile."""
BOUNDS = (TABLE[:-1] + TABLE[1:]) / np.float32(2)
"""A weight above BOUNDS[n] and not above the next one is nearest to TABLE[n + 1]."""
ROWS = 4096
"""Of a weight that are rounded at a time."""
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


def _narrow(pointer):
    words = words_at(pointer)
    x = np.empty(BLOCK, np.float32)
    while True:
        tile = take(pointer)
        if tile >= words[TILES]:
            return
        for block in range(tile * TILE, min(words[N], (tile + 1) * TILE)):
            if words[HALF]:
                source = halves(words[X] + 2 * block * BLOCK, 1, BLOCK)[0]
                for n in range(BLOCK):
                    x[n] = wide(source[n])
            else:
                copy_row(x, floats(words[X] + 4 * block * BLOCK, 1, BLOCK)[0], BLOCK)
            codes = bytes_at(words[CODES] + block * (BLOCK // 2), 1, BLOCK // 2)[0]
            floats(words[SCALES] + 4 * block, 1, 1)[0, 0] = _narrow_block(x, codes)


NARROW = Kernel(_narrow)


def narrowed(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Codes [o, i / 2] (uint8, the even weight in the high half) and scales [o, i / BLOCK]
    (float32) of a weight [o, i] of float32 or bfloat16 on the CPU, i in whole blocks."""
    o, i = weight.shape
    if i % BLOCK or weight.dtype not in DTYPES:
        raise ValueError(f"{tuple(weight.shape)} of {weight.dtype} has no whole blocks of {BLOCK}")
    weight = weight.detach().contiguous()
    codes = torch.empty(o, i // 2, dtype=torch.uint8)
    scales = torch.empty(o, i // BLOCK)
    words = np.zeros(WORDS, np.int64)
    words[N], words[X], words[HALF] = (
        scales.numel(),
        weight.data_ptr(),
        weight.dtype != torch.float32,
    )
    words[CODES], words[SCALES] = codes.data_ptr(), scales.data_ptr()
    NARROW.run(words, -(-scales.numel() // TILE))
    return codes, scales


def as_numbers(codes: Tensor, scales: Tensor) -> Tensor:
    """The weight [o, i] in float32 that codes and scales stand for."""
    halves_of = torch.stack([codes >> 4, codes & 15], -1).flatten(1).int()
    found = torch.from_numpy(TABLE)[halves_of]
    return (found.view(len(codes), -1, BLOCK) * scales[..., None]).flatten(1)


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
