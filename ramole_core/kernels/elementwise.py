"""Elementwise activations, written out: PyTorch's treat whole vectors and the remainder
differently, and the batch decides a number's place.
"""

import numpy as np
import torch
from torch import Tensor

from ramole_core.kernels.call_args import TILES, WORDS, floats, halves, take, words_at
from ramole_core.kernels.compiled import float_of, kernel, put, wide
from ramole_core.kernels.team import Kernel

SILU, GELU, GELU_TANH = 0, 1, 2
N, HALF, KIND, X, Y = range(2, 7)
TILE = 16384
"""Numbers of a tile."""
_f = np.float32
_LOG2E, _LN2_HIGH, _LN2_LOW = _f(1.44269504), _f(0.693359375), _f(-2.12194440e-4)
_EXP = tuple(
    map(_f, (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1 / 6, 0.5))
)
_ERF = tuple(map(_f, (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)))
_ONE, _HALF_, _TWO, _P = _f(1), _f(0.5), _f(2), _f(0.3275911)
_ROOT, _ROOT_PI, _CUBE = _f(0.70710678), _f(0.79788456), _f(0.044715)
_MIN_EXPONENT, _MAX_EXPONENT = _f(-87), _f(88)


@kernel(inline="always")
def exp(x):
    """e^x of a float32 between e^-87 and e^88, within 2e-7 of itself (Cephes, `expf`)."""
    x = min(max(x, _MIN_EXPONENT), _MAX_EXPONENT)
    whole = np.floor(x * _LOG2E + _HALF_)
    x = x - whole * _LN2_HIGH
    x = x - whole * _LN2_LOW
    y = _EXP[0]
    y = y * x + _EXP[1]
    y = y * x + _EXP[2]
    y = y * x + _EXP[3]
    y = y * x + _EXP[4]
    y = y * x + _EXP[5]
    y = y * x * x + x + _ONE
    return float_of(np.uint32(np.int32(whole) + np.int32(127)) << np.uint32(23)) * y


@kernel(inline="always")
def tanh(x):
    """tanh of a float32."""
    return _ONE - _TWO / (exp(_TWO * x) + _ONE)


@kernel(inline="always")
def erf(x):
    """erf of a float32 within 2e-7 (Abramowitz and Stegun, 7.1.26)."""
    size = abs(x)
    t = _ONE / (_ONE + _P * size)
    y = _ERF[4]
    y = y * t + _ERF[3]
    y = y * t + _ERF[2]
    y = y * t + _ERF[1]
    y = y * t + _ERF[0]
    y = _ONE - y * t * exp(-size * size)
    return y if x >= 0 else -y


@kernel(inline="always")
def _silu(x):
    return x / (_ONE + exp(-x))


@kernel(inline="always")
def _gelu(x):
    return _HALF_ * x * (_ONE + erf(x * _ROOT))


@kernel(inline="always")
def _gelu_tanh(x):
    return _HALF_ * x * (_ONE + tanh(_ROOT_PI * (x + _CUBE * x * x * x)))


@kernel()
def _all(x, y, kind):
    """y = act(x): a loop for each, so that the compiler sees one function."""
    if kind == SILU:
        for at in range(len(x)):
            put(y, at, _silu(wide(x[at])))
    elif kind == GELU:
        for at in range(len(x)):
            put(y, at, _gelu(wide(x[at])))
    else:
        for at in range(len(x)):
            put(y, at, _gelu_tanh(wide(x[at])))


def _activate(pointer):
    words = words_at(pointer)
    n, kind = words[N], words[KIND]
    while True:
        tile = take(pointer)
        if tile >= words[TILES]:
            return
        start = tile * TILE
        count = min(TILE, n - start)
        if words[HALF]:
            x, y = words[X] + 2 * start, words[Y] + 2 * start
            _all(halves(x, 1, count)[0], halves(y, 1, count)[0], kind)
        else:
            x, y = words[X] + 4 * start, words[Y] + 4 * start
            _all(floats(x, 1, count)[0], floats(y, 1, count)[0], kind)


ACTIVATE = Kernel(_activate)


def activate(x: Tensor, kind: int) -> Tensor:
    """silu, gelu or its tanh form of every number, in the dtype of x (float32 or bfloat16)."""
    x = x.contiguous()
    y = torch.empty_like(x)
    words = np.zeros(WORDS, np.int64)
    words[N], words[HALF], words[KIND] = x.numel(), x.dtype == torch.bfloat16, kind
    words[X], words[Y] = x.data_ptr(), y.data_ptr()
    ACTIVATE.run(words, -(-x.numel() // TILE))
    return y
