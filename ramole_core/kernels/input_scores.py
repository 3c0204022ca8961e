"""The words of a mixing call, and scores W x of a gate that reads inputs.

x is the input of the module, or of its block or parent: that one is scored when the block or parent
is entered (`SCORE_SCOPE`), once for all of its modules, which read the scores.
"""

from ramole_core.kernels.call_args import TILES, floats, ints, longs, take, words_at
from ramole_core.kernels.compiled import copy_row, fill, kernel
from ramole_core.kernels.dots import COLUMNS, dots
from ramole_core.kernels.gate import BLOCK_INPUTS, INPUTS
from ramole_core.kernels.matrix_unit import SIDE
from ramole_core.kernels.team import Kernel

UNITS_STEP, WEIGHTS_STEP = 1, 2
"""What a call does; both, unless a method's own scores come between."""
(N, X, X_ROW, MODULES, I, A, A_HALF, S, GRAM, BANK_PAGES, RUNS, FIRST) = range(2, 14)
(UNITS, UNITS_ROW, ALPHA, K, LATE, STEPS) = range(14, 20)
(ROWS, PAGES, PAGES_ROW, SLOTS, ACTS, COUNTS, ASKS, PRESENT, FIXED, BIAS, USUAL, OWN) = range(
    20, 32
)
NORMS, TRACED, X_HALF, FORMS, FORM_TABLES, X_WIDE, SCOPES, SPLITS = range(32, 40)
"""The words of a call, behind the two of every call; from ROWS on the tables of `batch_mix.Rows`,
and at last the lengths of the weighted updates, [m, N, k] as ALPHA, whose rows have either,
whether x is bfloat16 as it lies, by row what its gate's own score reads, x in float32, the
scores [2, N, k in whole COLUMNS] of the block and of the parent that run, and whether weighted
units are split for the matrix unit (`split_place`). In a call of `SCORE_SCOPE` x is their input,
FIRST one of their modules, and STEPS the form that is scored."""


def split_place(m, n, width, j):
    """Where module j's units [n, width] lie as the matrix unit reads them: numbers from the start
    of the units [m, n, width], behind which they are, with SIDE - 1 rows more a module."""
    return (m * n + j * (n + SIDE - 1)) * width


_split_place = kernel()(split_place)


@kernel()
def split_at(words, j):
    """The address of `split_place` in the units of a call."""
    place = _split_place(words[MODULES], words[N], words[UNITS_ROW], j)
    return words[UNITS] + 4 * place


@kernel()
def weighs_before_units(words, row, asks):
    """Whether a row's weights hang on none of its units, and both are asked for in this call."""
    both = words[STEPS] == UNITS_STEP | WEIGHTS_STEP
    routed = asks[0] != 0 and asks[2] > 0
    own = floats(words[OWN] + 4 * row, 1, 1)[0, 0] != 0
    form = ints(words[FORMS] + 8 * row, 1, 2)[0, 0]
    return both and not routed and not own and (form == 0 or form >= INPUTS)


@kernel()
def score_inputs(words, row, j, start, tokens, k, out):
    """out[:tokens, :k] = x W^T at module j, where the row's gate reads an input; 0 where it has no
    W there."""
    form = ints(words[FORMS] + 8 * row, 1, 2)[0, 0]
    if form < INPUTS:
        return
    W, columns = _table(words, row, words[FIRST] + j), out.shape[1]
    if W == 0:
        fill(out, tokens, columns, 0)
    elif form == INPUTS:
        _products(words, W, start, tokens, k, out.ctypes.data, columns)
    else:
        place = words[SCOPES] + 4 * ((form - BLOCK_INPUTS) * words[N] + start) * columns
        scores = floats(place, tokens, columns)
        for n in range(tokens):
            copy_row(out[n], scores[n], k)


@kernel()
def _table(words, row, module):
    """The address of a row's W at a module."""
    whole = longs(words[FORM_TABLES] + 8 * row, 1, 1)[0, 0]
    return longs(whole + 8 * module, 1, 1)[0, 0]


@kernel()
def _products(words, W, start, tokens, k, out, out_row):
    """out[:tokens, :k] = x W^T; addresses of W and out."""
    x_row = words[X_ROW]
    x = words[X_WIDE] + 4 * start * x_row
    for first in range(0, k, COLUMNS):
        part = W + 4 * first * x_row
        dots(x, x_row, tokens, part, x_row, x_row, out + 4 * first, out_row)


def _score_scope(pointer):
    words = words_at(pointer)
    columns, form = -(-words[K] // COLUMNS) * COLUMNS, words[STEPS]
    while True:
        tile = take(pointer)
        if tile >= words[TILES]:
            return
        run = ints(words[RUNS] + 12 * tile, 1, 3)[0]
        row, start, tokens = run[0], run[1], run[2]
        if ints(words[FORMS] + 8 * row, 1, 2)[0, 0] != form:
            continue
        W = _table(words, row, words[FIRST])
        if W != 0:
            k = ints(words[COUNTS] + 8 * row, 1, 2)[0, 1]
            place = words[SCOPES] + 4 * ((form - BLOCK_INPUTS) * words[N] + start) * columns
            _products(words, W, start, tokens, k, place, columns)


SCORE_SCOPE = Kernel(_score_scope)
"""Score the input of a block or parent; a tile is a run of tokens."""
