"""Attention over pages: softmax(scale q K^T) V of many tokens, each over its own request's pages.

A tile is a few queries that stand together, with all the heads that share one key head: each page
is widened to float32 once for all of them. A query reads the pages in order from its first,
by `outers` and `soften`, so neither the other queries of its tile nor the place of a page in memory
changes its bits. Keys and values behind a request's last token are never used.
"""

import math

import numpy as np

from ramole_core.kernels.call_args import TILES, floats, halves, ints, take, words_at
from ramole_core.kernels.compiled import fill, kernel, put, wide
from ramole_core.kernels.outers import outers
from ramole_core.kernels.softmax import BLOCK as PAGE, soften
from ramole_core.kernels.team import Kernel
from ramole_core.kernels.vectors import LANES

ROWS = 48
"""Rows of a tile: its queries times the heads that share a key head."""
(HEADS, SHARED, D, DV, WIDE, TOKENS, KEYS, VALUES, HALF, TABLES, BLOCKS) = range(2, 13)
"""Key heads, query heads of each, sizes of a key and a value, of a value in whole vectors."""
(Q, Q_TOKEN, Q_HEAD, SCALE, OUT, WINDOW) = range(13, 19)
(NEW_K, K_TOKEN, K_HEAD, NEW_V, V_TOKEN, V_HEAD, RUNS) = range(19, 26)
CAP, SINKS = 26, 27
"""Addresses, 0 where there is none: of the number that no score goes beyond (cap tanh(s / cap)),
and of a score [heads * shared] that no value belongs to, one beside each head's others."""


def queries_of(shared: int) -> int:
    """The most queries of a tile, where so many heads share a key head."""
    return max(1, ROWS // shared)


@kernel()
def _take_queries(words, first, count, head, x):
    """x[:rows, :d] = scale q, in float32; the rows of one query stand together."""
    shared, d, scale = words[SHARED], words[D], floats(words[SCALE], 1, 1)[0, 0]
    step = words[Q_TOKEN]
    for e in range(shared):
        begin = first * step + (head * shared + e) * words[Q_HEAD]
        if words[HALF]:
            bits = halves(words[Q] + 2 * begin, count, step)
            for n in range(count):
                row, out = bits[n], x[n * shared + e]
                for j in range(d):
                    out[j] = wide(row[j]) * scale
        else:
            numbers = floats(words[Q] + 4 * begin, count, step)
            for n in range(count):
                row, out = numbers[n], x[n * shared + e]
                for j in range(d):
                    out[j] = row[j] * scale


@kernel()
def _widen(address, rows, columns, out):
    """out[:rows, :columns] = bfloat16 at an address; returns the address of out."""
    bits = halves(address, 1, rows * columns)[0]
    for n in range(rows * columns):
        out[n] = wide(bits[n])
    return out.ctypes.data


@kernel()
def _answer(words, first, count, head, sums, totals):
    """out[token, head] = the weighted sum of values, divided by the sum of weights."""
    shared, dv, o = words[SHARED], words[DV], words[HEADS] * words[SHARED] * words[DV]
    for n in range(count):
        for e in range(shared):
            row, total = sums[n * shared + e], totals[n * shared + e]
            begin = (first + n) * o + (head * shared + e) * dv
            if words[HALF]:
                bits = halves(words[OUT] + 2 * begin, 1, dv)[0]
                for j in range(dv):
                    put(bits, j, row[j] / total)
            else:
                numbers = floats(words[OUT] + 4 * begin, 1, dv)[0]
                for j in range(dv):
                    numbers[j] = row[j] / total


@kernel()
def _cap(scores, rows, columns, cap):
    """Cap each score by itself, which keeps its bits independent of others."""
    for row in range(rows):
        for j in range(columns):
            scores[row, j] = cap * np.float32(math.tanh(scores[row, j] / cap))


@kernel()
def _begin(words, head, count, totals, largest):
    """Initialise the running softmax, with each head's sink if there is one."""
    shared = words[SHARED]
    rows = count * shared
    for row in range(rows):
        totals[row], largest[row] = 0, -np.inf
    if words[SINKS]:
        sinks = floats(words[SINKS], 1, (head + 1) * shared)[0]
        for row in range(rows):
            totals[row], largest[row] = 1, sinks[head * shared + row % shared]


@kernel()
def _accumulate(words, keys, values, begin, position, count, x, scores, largest, totals, sums):
    """Accumulate one page, first token at `begin`, for a tile's queries."""
    shared, d, width, window = words[SHARED], words[D], words[WIDE], words[WINDOW]
    rows = count * shared
    columns = min(PAGE, (position + count - begin + LANES - 1) // LANES * LANES)
    fill(scores, rows, columns, 0)
    s, out = scores.ctypes.data, sums.ctypes.data
    outers(x.ctypes.data, d, rows, keys, PAGE, d, s, PAGE, columns)
    if words[CAP]:
        _cap(scores, rows, columns, floats(words[CAP], 1, 1)[0, 0])
    last = position + count - 1
    whole = begin + PAGE <= position + 1 and (window == 0 or last - window < begin)
    for n in range(count):
        high = min(PAGE, position + n + 1 - begin)
        low = max(0, position + n + 1 - window - begin) if window else 0
        if low >= high:
            continue
        at = n * shared
        for row in range(at, at + shared):
            place, peak = s + 4 * PAGE * row, largest.ctypes.data + 4 * row
            shrink = soften(place, low, high, peak, totals.ctypes.data + 4 * row)
            if shrink != 1:
                mine = sums[row]
                for j in range(width):
                    mine[j] *= shrink
        if not whole:  # a value that a query may not see must not reach it, not even times 0
            weights, v = s + 4 * (PAGE * at + low), values + 4 * low * width
            outers(weights, PAGE, shared, v, width, high - low, out + 4 * width * at, width, width)
    if whole:
        outers(s, PAGE, rows, values, width, PAGE, out, width, width)


def _attend(pointer):
    words = words_at(pointer)
    heads, shared, d, width = words[HEADS], words[SHARED], words[D], words[WIDE]
    most = max(ROWS, shared)
    x, sums = np.empty((most, d), np.float32), np.empty((most, width), np.float32)
    scores = np.empty((most, PAGE), np.float32)
    largest, totals = np.empty(most, np.float32), np.empty(most, np.float32)
    wide_k, wide_v = np.empty(d * PAGE, np.float32), np.empty(PAGE * width, np.float32)
    blocks, half = ints(words[BLOCKS], words[TILES] // heads, 4), words[HALF]
    size = 2 if half else 4
    while True:
        tile = take(pointer)
        if tile >= words[TILES]:
            return
        head = tile % heads
        first, count, position, table = blocks[tile // heads]
        pages = ints(words[TABLES] + 4 * table, 1, (position + count + PAGE - 1) // PAGE)[0]
        _take_queries(words, first, count, head, x)
        rows = count * shared
        fill(sums, rows, width, 0)
        _begin(words, head, count, totals, largest)
        start = max(0, position + 1 - words[WINDOW]) // PAGE if words[WINDOW] else 0
        for n in range(start, len(pages)):
            page = np.int64(pages[n]) * heads + head
            keys = words[KEYS] + size * page * d * PAGE
            values = words[VALUES] + size * page * PAGE * width
            if half:
                here = min(PAGE, position + count - n * PAGE)
                keys = _widen(keys, d, PAGE, wide_k)
                values = _widen(values, here, width, wide_v)
            begin = n * PAGE
            _accumulate(
                words, keys, values, begin, position, count, x, scores, largest, totals, sums
            )
        _answer(words, first, count, head, sums, totals)


@kernel()
def _store(words, k, v, keys, values, first, count, page, slot):
    """Write `count` tokens from `first` on into one page, behind its slot."""
    heads, d, dv, width = words[HEADS], words[D], words[DV], words[WIDE]
    for head in range(heads):
        for n in range(count):
            new = k[(first + n) * words[K_TOKEN] + head * words[K_HEAD] :]
            at = ((page * heads + head) * d) * PAGE + slot + n
            for j in range(d):
                keys[at + j * PAGE] = new[j]
            new = v[(first + n) * words[V_TOKEN] + head * words[V_HEAD] :]
            at = ((page * heads + head) * PAGE + slot + n) * width
            for j in range(dv):
                values[at + j] = new[j]


def _write(pointer):
    words = words_at(pointer)
    runs = ints(words[RUNS], words[TILES], 4)
    huge = 1 << 60  # the views' ends are not known here
    while True:
        tile = take(pointer)
        if tile >= words[TILES]:
            return
        first, count, page, slot = runs[tile]
        if words[HALF]:
            k, v = halves(words[NEW_K], 1, huge)[0], halves(words[NEW_V], 1, huge)[0]
            keys, values = halves(words[KEYS], 1, huge)[0], halves(words[VALUES], 1, huge)[0]
            _store(words, k, v, keys, values, first, count, np.int64(page), slot)
        else:
            k, v = floats(words[NEW_K], 1, huge)[0], floats(words[NEW_V], 1, huge)[0]
            keys, values = floats(words[KEYS], 1, huge)[0], floats(words[VALUES], 1, huge)[0]
            _store(words, k, v, keys, values, first, count, np.int64(page), slot)


ATTEND = Kernel(_attend)
WRITE = Kernel(_write)
