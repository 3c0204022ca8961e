"""The gate of each token and its weighted units, for all modules that share an input.

    u = A x of the row's own pages,  q = A_r x
    score = (q gram * u) summed by adapter + the table's other terms,  alpha = softmax (or table)
    units = alpha[owner] * u

(RAMoLE, arXiv 2406.16989, eq. 6-11.) A tile is a run of tokens that are mixed alike, at one module:
their pages are widened once for all of them. No adapter of another row is read (Punica's
batched gather, arXiv 2310.18547, for a CPU).
"""

import numpy as np

from ramole_core.kernels import input_scores as call
from ramole_core.kernels.call_args import (
    TILES,
    bytes_at,
    floats,
    halves,
    ints,
    longs,
    take,
    words_at,
)
from ramole_core.kernels.compiled import copy_row, fill, kernel
from ramole_core.kernels.direct import MAX_DIRECT_ROWS, dots_of_halves
from ramole_core.kernels.dots import COLUMNS, NONE, dots
from ramole_core.kernels.gate import (
    INPUTS,
    LINEAR,
    activation_z,
    gate_weights,
    score_units,
    update_lengths,
    weigh_units,
)
from ramole_core.kernels.half_dots import half_dots
from ramole_core.kernels.matrix_update import split_units
from ramole_core.kernels.team import Kernel
from ramole_core.kernels.vectors import LANES
from ramole_core.kernels.widen import PAIR, widen_floats, widen_halves

RUN = 32
"""Most tokens of a tile."""
MAX_DENSE_UNITS = 24
"""Units of a row up to which all are computed, whichever count."""


@kernel()
def _widen_page(words, page, j, out):
    """One row of A at module j, in float32."""
    i = words[call.I]
    row = page * words[call.MODULES] + j
    if words[call.A_HALF]:
        widen_halves(halves(words[call.A] + 2 * row * i, 1, i)[0], i, out)
    else:
        widen_floats(floats(words[call.A] + 4 * row * i, 1, i)[0], i, out)


@kernel()
def _reads_in_place(words, tokens):
    """Whether so few tokens read the pages in place."""
    return words[call.A_HALF] != 0 and words[call.I] % PAIR == 0 and tokens <= MAX_DIRECT_ROWS


@kernel()
def _four_pages(words, pages, before, first, last, j):
    """The addresses of rows of A in bfloat16 at module j: of four pages from `first` on, of page
    `last` for those behind it."""
    size = 2 * words[call.I]
    step = words[call.MODULES] * size
    begin = words[call.A] + j * size + before * step
    return (
        begin + step * pages[first],
        begin + step * pages[min(first + 1, last)],
        begin + step * pages[min(first + 2, last)],
        begin + step * pages[min(first + 3, last)],
    )


@kernel()
def _accumulate(words, pages, count, before, j, start, tokens, buffer, out, out_row):
    """out[:tokens, :count] = x A^T at module j, of the rows pages[:count] of A, `before` added."""
    half, i, x_row = words[call.X_HALF], words[call.I], words[call.X_ROW]
    x = words[call.X] + (2 * start * i if half else 4 * start * x_row)
    if half or _reads_in_place(words, tokens):
        ahead = (
            2 * COLUMNS * words[call.MODULES] * x_row
        )  # pages of one adapter mostly lie together
        for first in range(0, count, COLUMNS):
            four = _four_pages(words, pages, before, first, count - 1, j)
            found = (out + 4 * first, out_row)
            if half:
                half_dots((x, i), tokens, four, NONE, ahead, i, found)
            else:
                dots_of_halves((x, x_row), tokens, four, NONE, ahead, x_row, found)
        return
    for first in range(0, count, COLUMNS):
        for c in range(first, min(first + COLUMNS, count)):
            _widen_page(words, before + pages[c], j, buffer[c - first])
        dots(x, x_row, tokens, buffer.ctypes.data, x_row, x_row, out + 4 * first, out_row)


@kernel()
def _respond(words, pages, R, j, router, rank, q, tokens, grams, out):
    """out[:tokens, :R] = q gram."""
    width = grams.shape[1]
    for c in range(R):
        place = (j * words[call.BANK_PAGES] + pages[c]) * words[call.S] + router
        copy_row(grams[c], floats(words[call.GRAM] + 4 * place, 1, rank)[0], rank)
    for c in range(0, R, COLUMNS):
        w = grams.ctypes.data + 4 * c * width
        dots(q.ctypes.data, width, tokens, w, width, width, out.ctypes.data + 4 * c, out.shape[1])


def _mix(pointer):
    words = words_at(pointer)
    modules, k = words[call.MODULES], words[call.K]
    pages_row, units_row = words[call.PAGES_ROW], words[call.UNITS_ROW]
    s_row = max(LANES, -(-words[call.S] // LANES) * LANES)
    widens = not _reads_in_place(words, words[call.N])
    buffer = np.zeros((COLUMNS if widens else 0, words[call.X_ROW]), np.float32)
    q = np.zeros((RUN, s_row), np.float32)
    grams = np.zeros((max(units_row, 1), s_row), np.float32)
    responses = np.zeros((RUN, max(units_row, 1)), np.float32)
    routers = np.arange(max(words[call.S], 1)).astype(np.int32)
    score = np.empty(max(k, 1), np.float32)
    spare = np.empty(max(k, 1), np.float32)
    aside = np.empty((2, max(k, 1)), np.float32)
    ready = np.empty((RUN, max(k, 1)), np.float32)
    compact = np.empty((RUN, max(units_row, 1)), np.float32)
    picked = np.empty(max(units_row, 1), np.int32)
    few = np.empty(max(units_row, 1), np.int32)
    linear = np.zeros((RUN, -(-max(k, 1) // COLUMNS) * COLUMNS), np.float32)
    while True:
        tile = take(pointer)
        if tile >= words[TILES]:
            return
        j = tile % modules
        run = ints(words[call.RUNS] + 12 * (tile // modules), 1, 3)[0]
        row, start, tokens = run[0], run[1], run[2]
        pages = ints(words[call.PAGES] + 4 * row * pages_row, 1, pages_row)[0]
        counts = ints(words[call.COUNTS] + 8 * row, 1, 2)[0]
        asks = ints(words[call.ASKS] + 20 * row, 1, 5)[0]
        R = counts[0]
        if R == 0:
            continue
        units = words[call.UNITS] + 4 * (j * words[call.N] + start) * units_row
        traced = words[call.ALPHA] != 0 and bytes_at(words[call.TRACED] + row, 1, 1)[0, 0] != 0
        slots = ints(words[call.SLOTS] + 4 * row * pages_row, 1, pages_row)[0]
        acts = bytes_at(words[call.ACTS] + row * pages_row, 1, pages_row)[0]
        at = (words[call.FIRST] + j) * words[call.ROWS] + row
        present = bytes_at(words[call.PRESENT] + at * k, 1, k)[0]
        if words[call.STEPS] & call.WEIGHTS_STEP:
            call.score_inputs(words, row, j, start, tokens, counts[1], linear)
        early = R > MAX_DENSE_UNITS and call.weighs_before_units(words, row, asks)
        if early:
            for n in range(tokens):
                _weigh(words, row, start + n, j, spare, spare, score, ready[n], aside, linear[n])
            used = _used(ready, tokens, slots, present, R, counts[1], picked)
            for n in range(used):
                few[n] = pages[picked[n]]
            out = compact.ctypes.data
            _accumulate(words, few, used, words[call.S], j, start, tokens, buffer, out, units_row)
            _spread(compact, tokens, picked, used, floats(units, tokens, units_row))
        elif words[call.STEPS] & call.UNITS_STEP:
            _accumulate(words, pages, R, words[call.S], j, start, tokens, buffer, units, units_row)
        if words[call.STEPS] & call.WEIGHTS_STEP:
            router, rank = asks[1], asks[2]
            if asks[0] != 0 and rank > 0:
                fill(q, tokens, s_row, 0)
                out = q.ctypes.data
                _accumulate(words, routers[router:], rank, 0, j, start, tokens, buffer, out, s_row)
                fill(q[:, rank:], tokens, s_row - rank, 0)
                _respond(words, pages, R, j, router, rank, q, tokens, grams, responses)
            for n in range(tokens):
                one = floats(units + 4 * n * units_row, 1, units_row)[0]
                place = 4 * (j * words[call.N] + start + n) * k
                weight = floats(words[call.ALPHA] + place, 1, k)[0] if traced else spare
                if early:
                    copy_row(weight, ready[n], counts[1])
                else:
                    _weigh(
                        words, row, start + n, j, one, responses[n], score, weight, aside, linear[n]
                    )
                weigh_units(one, slots, acts, present, R, counts[1], weight)
                if traced:
                    update_lengths(one, slots, R, floats(words[call.NORMS] + place, 1, k)[0])
                if words[call.SPLITS]:
                    split_units(one, R, call.split_at(words, j) + 4 * (start + n) * units_row)


@kernel()
def _weigh(words, row, token, j, units, responses, score, weight, aside, linear):
    """The weights [k] of one token at module j."""
    rows, pages_row, k_all = words[call.ROWS], words[call.PAGES_ROW], words[call.K]
    module = words[call.FIRST] + j
    at = module * rows + row
    slots = ints(words[call.SLOTS] + 4 * row * pages_row, 1, pages_row)[0]
    counts, asks = (
        ints(words[call.COUNTS] + 8 * row, 1, 2)[0],
        ints(words[call.ASKS] + 20 * row, 1, 5)[0],
    )
    present = bytes_at(words[call.PRESENT] + at * k_all, 1, k_all)[0]
    fixed = floats(words[call.FIXED] + 4 * at * k_all, 1, k_all)[0]
    R, k = counts[0], counts[1]
    if asks[0] == 0:
        for c in range(k):
            weight[c] = fixed[c]
    else:
        own = floats(words[call.OWN] + 4 * row, 1, 1)[0, 0]
        for c in range(k):
            score[c] = np.float32(0)
        if own != 0:
            usual = floats(words[call.USUAL] + 8 * at * k_all, k_all, 2)
            for c in range(R):
                if slots[c] < k:
                    score[slots[c]] += units[c] * units[c]
            activation_z(score, usual, present, own, k)
        for c in range(k):
            score[c] += fixed[c]
        if words[call.LATE]:
            late = floats(words[call.LATE] + 4 * (j * words[call.N] + token) * k_all, 1, k_all)[0]
            for c in range(k):
                score[c] += late[c]
        if asks[2] > 0:
            for c in range(R):
                if slots[c] < k and present[slots[c]] != 0:
                    score[slots[c]] += responses[c] * units[c]
        form, top = ints(words[call.FORMS] + 8 * row, 1, 2)[0]
        if form >= INPUTS:
            for c in range(k):
                score[c] += linear[c]
        elif form != 0:
            wide = k if form == LINEAR else 1
            whole = longs(words[call.FORM_TABLES] + 8 * row, 1, 1)[0, 0]
            table = floats(whole + 4 * module * wide * R, wide, R)
            score_units(form, top, table, units, slots, present, R, k, score, aside)
        gate_weights(score, present, weight, k, asks)
        bias = floats(words[call.BIAS] + 4 * at * k_all, 1, k_all)[0]
        for c in range(k):
            if present[c] != 0 or asks[0] == 2:
                weight[c] += bias[c]


@kernel()
def _used(weights, tokens, slots, present, R, k, picked):
    """picked[:n]: which of a row's units count for some token; returns n."""
    n = 0
    for c in range(R):
        counts = slots[c] >= k
        if not counts and present[slots[c]] != 0:
            for token in range(tokens):
                counts = counts or weights[token, slots[c]] != 0
        if counts:
            picked[n] = c
            n += 1
    return n


@kernel()
def _spread(compact, tokens, picked, used, units):
    """units [tokens, :] = 0, but at the places `picked` what is in `compact`."""
    fill(units, tokens, units.shape[1], 0)
    for token in range(tokens):
        for n in range(used):
            units[token, picked[n]] = compact[token, n]


MIX = Kernel(_mix)
