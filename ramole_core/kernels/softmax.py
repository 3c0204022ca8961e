"""One step of a running softmax over a block of scores, in vectors.

With m the largest score so far and Z the sum of exp(s - m) so far, a block's scores s give

    m' = max(m, s),    w = exp(s - m'),    Z' = Z exp(m - m') + sum w

exp is written out in vectors, so that a score's weight is the same wherever it stands, and the sum
runs along the lanes and then up one tree.
"""

from llvmlite import ir
from numba import types

from ramole_core.kernels.compiled import instructions, kernel
from ramole_core.kernels.vectors import (
    FLOAT,
    LANES,
    VECTOR,
    WORD,
    fma,
    load,
    places,
    spread,
    store,
    word,
)

BLOCK = 64
"""Scores of a block."""
WHOLE = ir.VectorType(ir.IntType(32), LANES)
MAGIC = 12582912.0
"""1.5 * 2^23: added to a small number, it leaves the nearest integer in the lowest bits."""
LOG2E = 1.44269504088896341
LN2 = (0.693359375, -2.12194440e-4)
"""Their sum; the first has so few bits that its multiples are exact."""
TERMS = (
    *(1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3),
    *(4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1),
)
"""Of (exp(r) - 1 - r) / r^2 for |r| < ln(2) / 2, from the highest power (Cephes, expf)."""
MIN_EXPONENT = -87.0
"""exp is 0 below."""


def _float(number: float) -> ir.Constant:
    return ir.Constant(VECTOR, [ir.Constant(FLOAT, number)] * LANES)


def _exp(builder, x):
    """exp of numbers of at most 0; NaN stays NaN."""
    shifted = fma(builder, x, _float(LOG2E), _float(MAGIC))
    n = builder.fsub(shifted, _float(MAGIC))
    r = x
    for part in LN2:
        r = fma(builder, n, _float(-part), r)
    found = _float(TERMS[0])
    for term in TERMS[1:]:
        found = fma(builder, found, r, _float(term))
    found = fma(builder, found, builder.fmul(r, r), r)
    found = builder.fadd(found, _float(1.0))
    power = builder.shl(builder.bitcast(shifted, WHOLE), places([23] * LANES))
    found = builder.bitcast(builder.add(builder.bitcast(found, WHOLE), power), VECTOR)
    found = builder.select(builder.fcmp_ordered("<", x, _float(MIN_EXPONENT)), _float(0.0), found)
    return builder.select(builder.fcmp_unordered("uno", x, x), x, found)


def _larger(builder, a, b):
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


def _fold(builder, vector, join):
    """Reduce all lanes, halves with halves."""
    width = LANES
    while width > 1:
        width //= 2
        low = builder.shuffle_vector(vector, vector, places(range(width)))
        high = builder.shuffle_vector(vector, vector, places(range(width, 2 * width)))
        vector = join(low, high)
    return builder.extract_element(vector, ir.Constant(ir.IntType(32), 0))


@instructions
def _soften(context, scores, low, high, largest, total):
    def build(context, builder, signature, args):
        scores, low, high, largest, total = args
        low, high = (spread(builder, builder.trunc(n, ir.IntType(32))) for n in (low, high))
        found = []
        for v in range(BLOCK // LANES):
            place = builder.add(scores, word(4 * LANES * v))
            at = places(range(LANES * v, LANES * (v + 1)))
            seen = builder.and_(
                builder.icmp_signed(">=", at, low), builder.icmp_signed("<", at, high)
            )
            number = builder.select(seen, load(builder, place), _float(float("-inf")))
            found.append((place, number))

        def larger(a, b):
            return _larger(builder, a, b)

        most = found[0][1]
        for _, number in found[1:]:
            most = larger(number, most)
        before = load(builder, largest, FLOAT)
        most = larger(_fold(builder, most, larger), before)
        store(builder, most, largest)
        shrink = _exp(builder, spread(builder, builder.fsub(before, most)))
        shrink = builder.extract_element(shrink, ir.Constant(ir.IntType(32), 0))
        sums, mosts = None, spread(builder, most)
        for place, number in found:
            weight = _exp(builder, builder.fsub(number, mosts))
            store(builder, weight, place)
            sums = weight if sums is None else builder.fadd(sums, weight)
        so_far = builder.fmul(load(builder, total, FLOAT), shrink)
        block = _fold(builder, sums, builder.fadd)
        store(builder, builder.fadd(so_far, block), total)
        return shrink

    assert scores == types.int64 and WORD.width == 64
    return types.float32(*[types.int64] * 5), build


@kernel()
def soften(scores, low, high, largest, total):
    """Turn the scores at [low, high) of a block into weights, and all others into 0.

    Addresses of float32; `largest` and `total` are m and Z. Returns exp(m - m'), by which whatever
    was summed with earlier weights shrinks.
    """
    return _soften(scores, low, high, largest, total)
