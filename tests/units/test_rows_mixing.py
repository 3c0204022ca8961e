"""The mixing by rows against float64, and a token against itself in any batch and any chunk."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ramole_core.composition import Signal
from ramole_core.composition.activation import MAX_Z, TINY
from ramole_core.kernels.compiled import view
from ramole_core.kernels.gate import (
    ALIGNED,
    BLOCK_INPUTS,
    INPUTS,
    LENGTH,
    LINEAR,
    LOUDEST,
    PARENT_INPUTS,
)
from ramole_core.kernels.input_scores import UNITS_STEP, WEIGHTS_STEP
from ramole_core.kernels.mixing import RUN
from ramole_core.kernels.weight import Input, Weight
from ramole_core.layers.batch_mix import ACTIVATIONS, FIXED, KEEPS, MASKED, BatchMix, Rows
from ramole_core.layers.gate_softmax import TILE, in_tiles, wide_rows
from ramole_core.layers.rows_mixing import RowsMixing
from ramole_core.layers.traced import Traced

M, O, S, T, RANKS = 2, 41, 3, 2 * RUN + 6, (2, 5, 1, 29)
D = 21
"""Numbers in the input of a block or parent."""
REQUESTS = ((0, 1, 3), (2,), (), (3, 2, 0), (1,), (1, 0, 2), (3, 0), (3, 1), (0, 2, 1), (3, 1))
MODES = (MASKED, KEEPS, KEEPS, FIXED, FIXED, KEEPS, KEEPS, KEEPS, KEEPS, MASKED)
OWN = (0.7, 0, 0, 0, 0, 0, 0.4, 0, 0, 0)
TOP = (0, 0, 0, 0, 0, 2, 0, 1, 0, 1)
RAW = (0, 0, 0, 0, 0, 0, 1, 0, 0, 0)
BIAS = (0, 0, 0, 0, 0, 0.5, 0, 0, 0.2, 0)
ROUTED = (1, 1, 1, 1, 1, 1, 1, 0, 1, 0)
"""The weights of the fourth, the eighth and the last hang on no units, of which they have many."""
FORM = (ALIGNED, LENGTH, 0, 0, INPUTS, LOUDEST, LINEAR, INPUTS, BLOCK_INPUTS, PARENT_INPUTS)
"""Of a gate's own score; two of three are kept where the loudest is looked for."""
BYPASS = (0, 0, 0, 0, 0, 0, 1, 0, 0, 0)
"""The seventh has two gelu units behind those of its adapters."""
PAGES = np.cumsum((0, *RANKS, 2))
CASES = ((torch.float32, 37), (torch.bfloat16, 37), (torch.bfloat16, 64))
"""Types, and numbers of a module's input: whole tiles of a CPU's matrix unit, or not."""
BOTH = UNITS_STEP | WEIGHTS_STEP


class Batch(BatchMix):
    """Some of the requests, in any order, with tables made here."""

    def __init__(self, bank, tables: Rows, k: int):
        self.bank, self.k, self.b = bank, k, len(tables.pages)
        self.__dict__["tables"] = tables


class Told(Traced):
    """Where the kernel writes, and for whom."""

    def __init__(self, rows, told):
        self.rows, self.recorded = rows, told


class Case:
    """Ten requests of T tokens each."""

    def __init__(self, dtype, i):
        pick = torch.Generator().manual_seed(7)
        total = int(PAGES[-1])

        def random(*shape, scale=1.0):
            return (torch.randn(*shape, generator=pick) * scale).to(dtype)

        def table(*shape):
            return torch.randn(M, len(REQUESTS), 4, *shape, generator=pick).numpy()

        self.dtype, self.x = dtype, random(len(REQUESTS), T, i)
        self.W, self.A = random(O, i, scale=i**-0.5), random(S + total, M, i, scale=i**-0.5)
        self.B = random(total, O)
        self.scope_x = {at: random(len(REQUESTS), T, D) for at in (BLOCK_INPUTS, PARENT_INPUTS)}
        self.gram = torch.randn(M, total, S, generator=pick)
        self.fixed, self.usual = table(), table(2)
        self.fixed[:, 3, 0] = 0  # the one with many units
        self.late = torch.randn(M, len(REQUESTS), T, 4, generator=pick)
        self.present = np.ones((M, len(REQUESTS), 4), np.bool_)
        self.present[1, 0, 1] = self.present[0, 6, 1] = self.present[1, 3, 2] = False
        self.present[0, 5, 0] = self.present[1, 5, 2] = self.present[1, 1, 0] = False
        views = view(self.A), view(self.gram), [view(self.B)] * M
        sites = SimpleNamespace(scopes={"block": {"block": 0}, "parent": {"parent": 1}})
        groups = [SimpleNamespace(m=M, i=i)]
        layout = SimpleNamespace(groups=groups, first=lambda g, block: 0, sites=sites)
        tensors = SimpleNamespace(s=S, views=lambda g, block: views)
        self.bank = SimpleNamespace(dtype=dtype, tensors=tensors, layout=layout)
        self.weight = Weight(self.W, (O, i))
        self.W_of = {}
        self.forms = [self._table(n, pick) for n in range(len(REQUESTS))]

    def _table(self, n, pick):
        wide = len(REQUESTS[n]) if FORM[n] == LINEAR else 1
        if FORM[n] >= INPUTS:
            i, count = (self.x.shape[2], M) if FORM[n] == INPUTS else (D, 1)
            self.W_of[n] = [torch.randn(len(REQUESTS[n]), i, generator=pick) for _ in range(count)]
            every = self.W_of[n] if count == M else self.W_of[n] * M
            return np.array([wide_rows(W).data_ptr() for W in every], np.int64)
        table = torch.randn(M, wide, len(self.units_of(n)), generator=pick)
        return (table * 0 + 0.7 if FORM[n] == LENGTH else table).numpy()

    def units_of(self, n):
        """(page, place, activation) of every unit of a request."""
        own = REQUESTS[n]
        mine = [(p, j, 0) for j, at in enumerate(own) for p in range(*PAGES[at : at + 2])]
        if BYPASS[n]:
            mine += [(p, len(own), ACTIVATIONS.index("gelu")) for p in range(*PAGES[4:6])]
        return mine

    def batch(self, at):
        """The requests at these places; the tables are as wide as these need."""
        k = max(len(REQUESTS[n]) for n in at)
        every = [self.units_of(n) for n in at]
        shape = len(at), max(map(len, every))
        pages, slots = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
        acts, asks = np.zeros(shape, np.int8), np.zeros((len(at), 5), np.int32)
        counts = np.array([(len(m), len(REQUESTS[n])) for n, m in zip(at, every, strict=True)])
        for row, (n, mine) in enumerate(zip(at, every, strict=True)):
            for c, (page, place, act) in enumerate(mine):
                pages[row, c], slots[row, c], acts[row, c] = page, place, act
            if REQUESTS[n] and MODES[n] != FIXED:
                asks[row] = MODES[n], 0, S * ROUTED[n], TOP[n], RAW[n]

        def cut(table):
            return np.ascontiguousarray(table[:, at, :k])

        bias = np.broadcast_to(np.float32(BIAS)[None, :, None], (M, len(REQUESTS), 4))
        tables = Rows(
            pages=pages,
            slots=slots,
            acts=acts,
            counts=counts.astype(np.int32),
            asks=asks,
            present=cut(self.present),
            fixed=cut(self.fixed),
            bias=cut(bias),
            usual=cut(self.usual),
            own=np.float32(OWN)[at],
            forms=np.array([(FORM[n], 2) for n in at], np.int32),
            form_tables=np.array([self.forms[n].ctypes.data for n in at], np.int64),
        )
        return Batch(self.bank, tables, k)

    def run(self, parts, *, traced=True, at_once=True, quiet=None):
        """For each part (request, first token, count): alpha [m, count, k] of its own adapters
        (None: not traced) and y [count, o] at the second module."""
        batch = self.batch([n for n, _, _ in parts])
        counts = [count for _, _, count in parts]
        told = np.zeros((2, M, sum(counts), batch.k), np.float32)
        rows = [row for row in range(len(parts)) if row != quiet]
        kept = Told(rows, told) if traced else None
        mixing = RowsMixing(batch, counts, traced=kept)
        x = torch.cat([self.x[n, start : start + count] for n, start, count in parts])
        late = [self.late[:, n, start : start + count] for n, start, count in parts]
        late, given = torch.cat(late, dim=1)[..., : batch.k], Input(x)
        for path, form in (("block", BLOCK_INPUTS), ("parent", PARENT_INPUTS)):
            scope = self.scope_x[form]
            mixing.enter(path, torch.cat([scope[n, at : at + count] for n, at, count in parts]))
        if at_once:
            units = mixing.run(given, 0, 0, BOTH, late=late)
        else:
            units = mixing.run(given, 0, 0, UNITS_STEP)
            units = mixing.run(given, 0, 0, WEIGHTS_STEP, late=late, units=units)
        y = self.weight.multiply(given, mixing.update(units, 0, 0, 1))
        found, at = [], 0
        for n, _, count in parts:
            here, k = slice(at, at + count), len(REQUESTS[n])
            mine = None if kept is None else torch.from_numpy(told[:, :, here, :k])
            found.append((mine, y[here]))
            at += count
        return found

    def slowly(self, n, t):
        """alpha and the length of alpha u [2, m, k], and y [o], of one token in float64, written as
        the equations are."""
        x, k = self.x[n, t].double(), len(REQUESTS[n])
        alpha = torch.stack([self._weights(n, t, j, x) for j in range(M)])
        y = self.W.double() @ x
        for page, place, _ in self.units_of(n):
            u, weight = self.A[S + page, 1].double() @ x, 1.0
            if place == k:
                u = torch.nn.functional.gelu(u)
            else:
                weight = alpha[1, place] * bool(self.present[1, n, place])
            y = y + weight * u * self.B[page].double()
        lengths = torch.zeros(M, k).double()
        for j in range(M):
            for place in range(k):
                pages = [page for page, own, _ in self.units_of(n) if own == place]
                u = self.A[[S + page for page in pages], j].double() @ x
                here = bool(self.present[j, n, place])
                lengths[j, place] = (alpha[j, place] * u).norm() * here
        return torch.stack([alpha, lengths]), y

    def _weights(self, n, t, j, x):
        k = len(REQUESTS[n])
        fixed = torch.from_numpy(self.fixed[j, n, :k]).double()
        if MODES[n] == FIXED or not k:
            return fixed
        scores = fixed + self.late[j, n, t, :k].double()
        q, energy = self.A[:S, j].double() @ x, torch.zeros(k).double()
        for page, place, _ in self.units_of(n):
            if place < k and self.present[j, n, place]:
                u = self.A[S + page, j].double() @ x
                scores[place] += ROUTED[n] * (q @ self.gram[j, page].double()) * u
                energy[place] += u**2
        here = torch.from_numpy(self.present[j, n, :k])
        mean, inverse = torch.from_numpy(self.usual[j, n, :k]).double().unbind(-1)
        z = ((0.5 * (energy + float(TINY)).log() - mean) * inverse).clamp(-MAX_Z, MAX_Z)
        scores = scores + OWN[n] * z * here + self._own_scores(n, t, j, x)
        taking = here | (MODES[n] == KEEPS)
        if RAW[n]:
            return (scores + BIAS[n]) * taking
        if TOP[n]:
            best = scores.masked_fill(~taking, -torch.inf).topk(min(TOP[n], k)).indices
            scores[[c for c in range(k) if c not in best]] = -torch.inf
        return (scores.masked_fill(~taking, -torch.inf).softmax(0) + BIAS[n]) * taking

    def _own_scores(self, n, t, j, x):
        """W x, or `decision.UnitScore` of units of the modules that each adapter has."""
        if FORM[n] == INPUTS:
            return self.W_of[n][j].double() @ x
        if FORM[n] > INPUTS:
            return self.W_of[n][0].double() @ self.scope_x[FORM[n]][n, t].double()
        k, table = len(REQUESTS[n]), torch.from_numpy(self.forms[n][j]).double()
        u = torch.zeros(k, len(self.units_of(n))).double()
        for c, (page, place, _) in enumerate(self.units_of(n)):
            if place < k and self.present[j, n, place]:
                u[place, c] = self.A[S + page, j].double() @ x
        if FORM[n] == ALIGNED:
            return (u @ table[0]).abs()
        if FORM[n] == LENGTH:
            return 0.7 * u.norm(dim=1)
        if FORM[n] == LINEAR:
            return table @ u.sum(0) / u.norm()
        if FORM[n] == LOUDEST:
            kept = (u @ table[0]).abs().topk(2).indices
            return torch.full((k,), -1.0).double().index_put((kept,), u[kept].norm(dim=1))
        return torch.zeros(k).double()


EVERY = tuple((n, 0, T) for n in range(len(REQUESTS)))


def check_numbers(dtype, i):
    case = Case(dtype, i)
    for n, (told, y) in enumerate(case.run(EVERY)):
        for t in (0, 1, RUN, T - 1):
            expected, wanted = case.slowly(n, t)
            torch.testing.assert_close(told[:, :, t].double(), expected, rtol=1e-5, atol=2e-6)
            tolerance = 2e-5 if dtype == torch.float32 else 2**-8
            torch.testing.assert_close(y[t].double(), wanted, rtol=tolerance, atol=tolerance)


def check_bits(dtype, i):
    case = Case(dtype, i)
    whole = case.run(EVERY)

    def check(parts, **options):
        for (n, start, count), (told, y) in zip(parts, case.run(parts, **options), strict=True):
            here = slice(start, start + count)
            assert torch.equal(y, whole[n][1][here])
            assert told is None or torch.equal(told, whole[n][0][:, :, here])

    for n in range(len(REQUESTS)):
        for t in (0, 1, 5, RUN - 1, RUN, T - 1):
            check([(n, t, 1)])
        check([(n, 3, T - 3)])
    check(EVERY[::-1], traced=False)
    check(EVERY, at_once=False)
    quiet = case.run(EVERY, quiet=1)
    assert not quiet[1][0].any() and torch.equal(quiet[1][1], whole[1][1]), "nobody asked for it"
    assert torch.equal(quiet[0][0], whole[0][0])
    for chunk in (1, 2, 7, RUN + 1):
        starts = range(0, T - chunk, 11)
        check([(n, start, chunk) for start in starts for n in (6, 0, 9, 5, 2, 8, 1)])


@pytest.mark.parametrize(("dtype", "i"), CASES)
def test_the_mixing_gives_what_float64_gives(dtype, i):
    check_numbers(dtype, i)


@pytest.mark.parametrize(("dtype", "i"), CASES)
@pytest.mark.parametrize("threads", [1, 2])
def test_a_token_has_the_same_bits_in_any_batch_and_any_chunk(dtype, i, threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        check_bits(dtype, i)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("tokens", [1, T])
def test_an_update_is_as_exact_as_units_of_more_than_16_bits(tokens):
    """Two adapters that differ by a thousandth undo each other but for that."""
    case, one, other = Case(torch.bfloat16, 64), PAGES[2], PAGES[0]
    case.W.zero_()
    case.A[S + other], case.B[other] = case.A[S + one], case.B[one]
    case.A[[S + page for page in range(PAGES[-1]) if page not in (one, other)]] = 0
    case.fixed[:, 3, :3], case.present[:, 3] = (0, 1, 2**-10 - 1), True
    [(_, y)] = case.run([(3, 0, tokens)])
    u = case.x[3, :tokens].double() @ case.A[S + one, 1].double()
    wanted = 2**-10 * u[:, None] * case.B[one].double()
    torch.testing.assert_close(y.double(), wanted, rtol=2**-5, atol=1e-6)


def test_a_request_without_adapters_is_the_base():
    case = Case(torch.bfloat16, 64)
    bare = case.weight.multiply(Input(case.x[2]))
    assert torch.equal(case.run(EVERY)[2][1], bare)


def test_a_methods_own_score_sees_each_token_at_its_own_place():
    """PyTorch may sum otherwise at another place or among fewer rows."""
    pick = torch.Generator().manual_seed(0)
    x, u = torch.randn(37, 48, generator=pick), torch.randn(37, 5, generator=pick)
    norms, W = torch.rand(37, 2, generator=pick), torch.randn(48, 1, generator=pick)

    def score(part):
        assert part.path == "made.up" and len(part.x) == TILE
        place = torch.arange(TILE)[:, None]
        return torch.cat([place, (part.x @ W).tanh(), part.u[0].sum(1)[:, None], part.norms], 1)

    def scores(start, end):
        part = Signal("made.up", x[start:end], (u[start:end],), norms[start:end])
        return in_tiles(score, part, start)

    whole = scores(0, 37)
    assert torch.equal(whole[:, 0], torch.arange(37.0) % TILE)
    assert torch.equal(whole[:, 3:], norms)
    torch.testing.assert_close(whole[:, 1:2], (x @ W).tanh())
    for start in range(37):
        for end in {start + 1, min(start + 5, 37), min(start + TILE + 1, 37), 37}:
            assert torch.equal(scores(start, end), whole[start:end])
