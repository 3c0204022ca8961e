"""`dots` of weights where they lie, in 4 bits, int8 or bfloat16: widened in registers.

Numbers and the order of their sums are those of `widen` and `dots`, and so are the bits. A weight
is widened anew for every few rows of x, which is less work than storing it, as long as the rows are
few.
"""

from ramole_core.kernels.call_args import prefetch_at
from ramole_core.kernels.dots import Turn, products_of
from ramole_core.kernels.outputs import BYTES, CODES, GRID, HALVES
from ramole_core.kernels.vectors import (
    FLOAT,
    LANES,
    MAX_ROWS,
    fma,
    load,
    spread,
    word,
)
from ramole_core.kernels.widen import (
    BLOCK,
    GROUP,
    PAIR,
    PERMUTES,
    bytes_of,
    grid_of,
    halves_of,
    look_up,
    on_grid,
    split_codes,
    table_of,
)

MAX_DIRECT_ROWS = 8
"""Most rows for which this form is faster."""
AHEAD = 8192
"""Prefetch distance of sequential reads, in bytes."""


SHIFT = {CODES: 3, GRID: 3, BYTES: 2, HALVES: 1}
"""How often the bytes of x are halved for those of the same weights."""


def _products_of(kind: int):
    """`products_of` weights of this kind."""
    in_blocks = kind in (CODES, GRID)
    step = BLOCK if in_blocks else PAIR

    def shifted(builder, address, at, shift: int):
        return builder.add(address, builder.lshr(at, word(shift)))

    def table(builder, address, at):
        scale = load(builder, shifted(builder, address, at, 6), FLOAT)
        return table_of(builder, spread(builder, scale))

    def add(builder, at, xs, ws, scales, ahead, sums):
        inputs = [builder.add(x, at) for x in xs]
        tables = [table(builder, s, at) for s in scales] if kind == CODES else []
        new = [list(row) for row in sums]
        for pair in range(step // PAIR):
            vectors = (2 * pair, 2 * pair + 1)
            numbers = [
                [load(builder, builder.add(x, word(4 * LANES * n))) for n in vectors]
                for x in inputs
            ]
            for j, w in enumerate(ws):
                place = shifted(builder, w, at, SHIFT[kind])
                if pair == 0:
                    prefetch_at(builder, builder.add(place, ahead))
                if in_blocks:
                    place = builder.add(place, word(LANES * pair))
                if kind == CODES:
                    codes = split_codes(builder, place, alone=LANES < 16)
                    weights = [look_up(builder, tables[j], at) for at in codes]
                elif kind == GRID:
                    block = shifted(builder, scales[j], at, 5)
                    group = grid_of(builder, block, pair * PAIR // GROUP)
                    weights = on_grid(builder, place, *group)
                elif kind == BYTES:
                    weights = bytes_of(builder, place)
                else:
                    weights = halves_of(builder, place)
                for row, both in zip(new, numbers, strict=True):
                    for number, weight in zip(both, weights, strict=True):
                        row[j] = fma(builder, number, weight, row[j])
        return new

    many = (4, 2, 1) if MAX_ROWS == 6 else (2, 1)
    return products_of(Turn(4, step, add), many, there=kind != CODES or PERMUTES)


dots_of_codes, dots_of_grid, dots_of_bytes, dots_of_halves = map(
    _products_of, (CODES, GRID, BYTES, HALVES)
)
"""By the kind of weights: NF4 with their scales, int4 with their steps and least numbers (n in
whole blocks), int8 without its scales, bfloat16 (n in whole pairs of vectors); x and out are
float32, x in the order of `dots`."""
