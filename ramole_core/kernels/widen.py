"""Weights and inputs as float32, in the order of `dots`.

Of each 2 LANES numbers those at even places come first, then those at odd ones: so two numbers that
lie in one word (two bfloat16, or two NF4 codes in a byte) become a lane each without being moved.
Weights and inputs have the same order, so a sum has the same terms.
"""

from collections.abc import Callable

import numpy as np
import torch
from llvmlite import ir
from numba import types
from torch import Tensor

from ramole_core.kernels.call_args import TILES, WORDS, floats, halves, take, words_at
from ramole_core.kernels.compiled import instructions, kernel, wide
from ramole_core.kernels.team import Kernel
from ramole_core.kernels.vectors import (
    FLOAT,
    LANES,
    VECTOR,
    call_llvm,
    fma,
    load,
    moved,
    paired,
    places,
    spread,
    store,
    word,
)

NF4 = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
    *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
    *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)
"""The sixteen numbers of NF4 (QLoRA, arXiv 2305.14314, appendix E)."""
TABLE = np.array(NF4, np.float32)
BLOCK = 64
"""Weights that share one scale."""
GROUP = 32
"""Weights in int4 that share a step and a least number."""
GRID_BYTES = 4 * BLOCK // GROUP
"""Of a BLOCK's steps and least numbers, bfloat16 in turn."""
PAIR = 2 * LANES
WORDS_OF = ir.VectorType(ir.IntType(32), LANES)


def _store(builder, vector, address, at: int) -> None:
    store(builder, vector, builder.add(address, word(4 * LANES * at)))


def split_codes(builder, address, *, alone: bool = True):
    """The two vectors of PAIR codes of 4 bits from LANES bytes: the even one is the high half of
    its byte. Not `alone`: above the odd one the even one's bits stay, which a look into a register
    of sixteen does not read."""
    both = load(builder, address, ir.VectorType(ir.IntType(8), LANES), align=1)
    both = builder.zext(both, WORDS_OF)
    odd = builder.and_(both, places([15] * LANES)) if alone else both
    return builder.lshr(both, places([4] * LANES)), odd


def split_halves(builder, both):
    """The two vectors of bfloat16 numbers that lie in words: the low half is the even one."""
    even = builder.shl(both, places([16] * LANES))
    odd = builder.and_(both, places([0xFFFF0000] * LANES))
    return builder.bitcast(even, VECTOR), builder.bitcast(odd, VECTOR)


def halves_of(builder, address):
    """The two vectors of PAIR bfloat16 numbers."""
    return split_halves(builder, load(builder, address, WORDS_OF, align=2))


def floats_of(builder, address):
    """The two vectors of PAIR float32 numbers: those at even places, and those at odd ones."""
    first, second = (load(builder, moved(builder, address, 4 * LANES * at)) for at in (0, 1))
    return [builder.shuffle_vector(first, second, places(range(odd, PAIR, 2))) for odd in (0, 1)]


def bytes_of(builder, address):
    """The two vectors of PAIR int8 numbers."""
    both = load(builder, address, ir.VectorType(ir.IntType(16), LANES), align=1)
    both = builder.sext(both, WORDS_OF)
    even = builder.ashr(builder.shl(both, places([24] * LANES)), places([24] * LANES))
    odd = builder.ashr(both, places([8] * LANES))
    return builder.sitofp(even, VECTOR), builder.sitofp(odd, VECTOR)


@kernel()
def _place(n):
    """Where the n-th number of a row goes."""
    return n // PAIR * PAIR + n % 2 * LANES + n % PAIR // 2


def _widen_of(numbers_of: Callable, size: int, number: Callable):
    """A kernel: out [paired(n)] from n numbers of so many bytes; what is behind them stays.

    `numbers_of(builder, address)` reads PAIR of them as two vectors, `number` makes float32 of one
    of the few at the end.
    """

    @instructions
    def widen_pair(context, source, out):
        def build(context, builder, signature, args):
            for odd, numbers in enumerate(numbers_of(builder, args[0])):
                _store(builder, numbers, args[1], odd)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64), build

    @kernel()
    def widen(source, n, out):
        whole = n // PAIR * PAIR
        for at in range(0, whole, PAIR):
            widen_pair(source.ctypes.data + size * at, out.ctypes.data + 4 * at)
        for at in range(whole, n):
            out[_place(at)] = number(source[at])

    return widen


widen_halves, widen_floats = _widen_of(halves_of, 2, wide), _widen_of(floats_of, 4, wide)
widen_bytes = _widen_of(bytes_of, 1, np.int8)
"""Of int8 numbers without their scale."""


@instructions
def _widen_pair_of_codes(context, codes, scale, out):
    """PAIR weights from LANES bytes."""

    def build(context, builder, signature, args):
        scales = spread(builder, args[1])
        for at, codes_of in enumerate(split_codes(builder, args[0], alone=LANES < 16)):
            found = look_up(builder, table_of(builder), codes_of)
            _store(builder, builder.fmul(found, scales), args[2], at)
        return context.get_dummy_value()

    return types.void(types.int64, types.float32, types.int64), build


@instructions
def _widen_pair_of_grid(context, codes, grid, out):
    """PAIR weights in int4 from LANES bytes, all of one GROUP."""

    def build(context, builder, signature, args):
        step, least = grid_of(builder, args[1], 0)
        for at, numbers in enumerate(on_grid(builder, args[0], step, least)):
            _store(builder, numbers, args[2], at)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 3), build


def grid_of(builder, address, n: int):
    """Step and least number of the n-th GROUP, each in every lane: the low and the high half of a
    word."""
    both = load(builder, builder.add(address, word(4 * n)), ir.IntType(32), align=2)
    return split_halves(builder, spread(builder, both))


def on_grid(builder, address, step, least):
    """The two vectors of PAIR weights in int4 from LANES bytes: no product of a code and a step is
    rounded, so each is rounded once."""
    both = split_codes(builder, address)
    return [fma(builder, builder.sitofp(codes, VECTOR), step, least) for codes in both]


def table_of(builder, scales=None):
    """NF4's numbers in registers, times a vector of one scale where it is given."""

    def table(numbers):
        whole = ir.Constant(VECTOR, [ir.Constant(FLOAT, float(np.float32(n))) for n in numbers])
        return whole if scales is None else builder.fmul(whole, scales)

    return [table(NF4[start : start + LANES]) for start in range(0, len(NF4), LANES)]


def look_up(builder, table, at):
    """table[at], by the instruction that permutes a register."""
    if LANES == 16:
        return call_llvm(builder, "x86.avx512.permvar.sf.512", VECTOR, [*table, at])
    low, high = (call_llvm(builder, "x86.avx2.permps", VECTOR, [half, at]) for half in table)
    return builder.select(builder.icmp_unsigned("<", at, places([8] * LANES)), low, high)


PERMUTES = LANES > 4


@kernel()
def widen_nf4(codes, scales, n, out):
    """out [n] from n weights in NF4, whole blocks of them."""
    for at in range(0, n, PAIR):
        scale = scales[at // BLOCK]
        if PERMUTES:
            _widen_pair_of_codes(codes.ctypes.data + at // 2, scale, out.ctypes.data + 4 * at)
        else:
            for lane in range(LANES):
                byte = codes[at // 2 + lane]
                out[at + lane] = TABLE[byte >> 4] * scale
                out[at + LANES + lane] = TABLE[byte & 15] * scale


@kernel()
def widen_grid(codes, grid, n, out):
    """out [n] from n weights in int4, whole blocks of them; addresses of codes and grid."""
    for at in range(0, n, PAIR):
        place = grid + 4 * (at // GROUP)
        _widen_pair_of_grid(codes + at // 2, place, out.ctypes.data + 4 * at)


# --- inputs ---------------------------------------------------------------------------------

N, I, X, HALF, OUT, OUT_ROW = range(2, 8)
"""The words of a call, behind the two of every call."""
ROWS = 16
"""Rows of a tile."""


def _widen_rows(address):
    words = words_at(address)
    n, i, out_row = words[N], words[I], words[OUT_ROW]
    out = floats(words[OUT], n, out_row)
    while True:
        tile = take(address)
        if tile >= words[TILES]:
            return
        for row in range(tile * ROWS, min(n, (tile + 1) * ROWS)):
            for at in range(out_row - PAIR if out_row > i else out_row, out_row):
                out[row, at] = 0
            if words[HALF]:
                widen_halves(halves(words[X] + 2 * row * i, 1, i)[0], i, out[row])
            else:
                widen_floats(floats(words[X] + 4 * row * i, 1, i)[0], i, out[row])


WIDEN = Kernel(_widen_rows)


def widened(x: Tensor) -> Tensor:
    """x [..., i] of float32 or bfloat16 as float32 [N, paired(i)] in the order of `dots`, zeros
    where there is nothing."""
    i = x.shape[-1]
    x = x.reshape(-1, i).contiguous()
    found = torch.empty(len(x), paired(i))
    words = np.zeros(WORDS, np.int64)
    words[N], words[I], words[X], words[HALF] = len(x), i, x.data_ptr(), x.dtype == torch.bfloat16
    words[OUT], words[OUT_ROW] = found.data_ptr(), found.shape[1]
    WIDEN.run(words, -(-len(x) // ROWS))
    return found
