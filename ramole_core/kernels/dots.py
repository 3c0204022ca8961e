"""out[m, j] = sum_n x[m, n] w[j, n] of COLUMNS rows of w: lanes run along n, then one tree of sums.

How many rows of x are taken at once changes the speed and not one bit: each number has an
accumulator of its own, filled and summed in the same order. What differs between weights (float32
here, those of `direct` and `half_dots` where they lie) is a turn of the loop.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from numba import types

from ramole_core.kernels.compiled import instructions, kernel
from ramole_core.kernels.vectors import (
    LANES,
    MAX_ROWS,
    accumulate,
    fma,
    in_steps,
    load,
    moved,
    places,
    store,
    word,
    zero,
)

COLUMNS = 4
"""Rows of w that are taken at once."""
NONE = (0, 0, 0, 0)
"""Placeholder for weights without scales."""


@dataclass(frozen=True)
class Turn:
    """A turn of the loop along n."""

    size: int
    """Bytes of a number of x."""
    step: int
    """Numbers of x that a turn takes."""
    add: Callable[..., list]
    """add(builder, at, xs, ws, scales, ahead, sums): the sums of xs times ws, row of x by row of x,
    after a turn that begins `at` bytes behind each address of xs."""


def sums_of(builder, vectors):
    """The sums of four vectors as one of four lanes, halves added to halves."""
    width = LANES
    while width > 4:
        low, high = places(range(width // 2)), places(range(width // 2, width))
        vectors = [
            builder.fadd(builder.shuffle_vector(v, v, low), builder.shuffle_vector(v, v, high))
            for v in vectors
        ]
        width //= 2

    def pairs(a, b, first, second):
        left = builder.shuffle_vector(a, b, places(first))
        return builder.fadd(left, builder.shuffle_vector(a, b, places(second)))

    front = pairs(vectors[0], vectors[1], (0, 1, 4, 5), (2, 3, 6, 7))
    back = pairs(vectors[2], vectors[3], (0, 1, 4, 5), (2, 3, 6, 7))
    return pairs(front, back, (0, 2, 4, 6), (1, 3, 5, 7))


def products_of(turn: Turn, many: Sequence[int], *, there: bool = True) -> Callable[..., None]:
    """Build a kernel: out[:m, :COLUMNS] = x [m, n] times four rows of w, `many` rows of x at once.

    x and out are an address and the length of a row in numbers, w and scales four addresses (NONE
    where the turn reads no scales); what lies `ahead` bytes behind each weight is prefetched. n:
    whole turns. Empty, and never called, on a CPU without the instructions (`there`).
    """

    @instructions
    def built(context, x, x_row, m, a, b, c, d, of_a, of_b, of_c, of_d, ahead, n, out, out_row):
        def build(context, builder, signature, args):
            x, x_row, m, *both, ahead, n, out, out_row = args
            ws, scales = both[:COLUMNS], both[COLUMNS:]
            end = builder.mul(n, word(turn.size))

            def some(first, rows: int) -> None:
                here = moved(builder, x, first, x_row, turn.size)
                xs = [moved(builder, here, x_row, turn.size * row) for row in range(rows)]

                def add(at, sums):
                    sums = [sums[COLUMNS * row : COLUMNS * (row + 1)] for row in range(rows)]
                    return sum(turn.add(builder, at, xs, ws, scales, ahead, sums), [])

                sums = [zero()] * (COLUMNS * rows)
                sums = accumulate(builder, end, turn.size * turn.step, sums, add)
                there = moved(builder, out, first, out_row, 4)
                for row in range(rows):
                    of_row = sums_of(builder, sums[COLUMNS * row : COLUMNS * (row + 1)])
                    store(builder, of_row, moved(builder, there, out_row, 4 * row))

            if there:
                in_steps(builder, m, many, some)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 15), build

    @kernel()
    def products(x, m, w, scales, ahead, n, out):
        a, b, c, d = w
        e, f, g, h = scales
        built(x[0], x[1], m, a, b, c, d, e, f, g, h, ahead, n, out[0], out[1])

    return products


def _add(builder, at, xs, ws, scales, ahead, sums):
    """float32 by float32, a vector a turn."""
    weights = [load(builder, builder.add(w, at)) for w in ws]
    numbers = [load(builder, builder.add(x, at)) for x in xs]
    return [
        [fma(builder, number, weight, total) for weight, total in zip(weights, row, strict=True)]
        for number, row in zip(numbers, sums, strict=True)
    ]


@kernel()
def four_rows(w, step, last):
    """The addresses of COLUMNS rows that lie `step` bytes apart from w on; of row `last` for those
    behind it."""
    return w, w + min(1, last) * step, w + min(2, last) * step, w + min(3, last) * step


_products = products_of(Turn(4, LANES, _add), (6, 4, 2, 1) if MAX_ROWS == 6 else (2, 1))


@kernel()
def dots(x, x_row, m, w, w_row, n, out, out_row):
    """out[:m, :4] = x [m, n] w[:4, n]^T; addresses of float32, rows in numbers, n in whole
    vectors."""
    _products((x, x_row), m, four_rows(w, 4 * w_row, COLUMNS - 1), NONE, 0, n, (out, out_row))
