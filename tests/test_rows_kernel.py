"""The compiled kernels against float64, in both dtypes, and a row against itself in any batch."""

import numpy as np
import pytest
import torch

from ramole_core.composition.surprise import MOST, TINY
from ramole_core.layers.batch_mix import ACTIVATIONS, FIXED, GATED, KEEPS
from ramole_core.layers.rows_kernel import add, compile_for, view, weigh

M, I, O, S, RANKS = 2, 37, 41, 3, (2, 5, 1, 8)
ROWS = ((0, 1, 3), (2,), (), (3, 2, 0), (1,), (1, 0, 2), (3, 0))
MODES = (GATED, GATED, GATED, FIXED, FIXED, GATED, KEEPS)
OWN = (0.7, 0, 0, 0.5, 0, 0, 0.4)  # the fourth row has no gate: not read
TOP = (0, 0, 0, 0, 0, 2, 0)
RAW = (0, 0, 0, 0, 0, 0, 1)
BIAS = (0, 0, 0, 0, 0, 0.5, 0)
BYPASS = (0, 0, 0, 0, 0, 0, 1)
"""The last row has two gelu units behind those of its adapters."""


class Case:
    def __init__(self, dtype, at=None):
        pick = torch.Generator().manual_seed(7)
        at = list(range(len(ROWS))) if at is None else at
        rows = [ROWS[n] for n in at]
        pages = np.cumsum((0, *RANKS, 2))
        total, most, k = pages[-1], max(RANKS) + 10, max(map(len, rows))

        def random(*shape, scale=1.0):
            return (torch.randn(*shape, generator=pick) * scale).to(dtype)

        def table(*shape):
            made = torch.randn(M, len(ROWS), 4, *shape, generator=pick)[:, at, :k]
            return np.ascontiguousarray(made.numpy())

        self.x, self.y = random(len(ROWS), I)[at], random(len(ROWS), O)[at]
        self.A, self.B = random(S + total, M, I, scale=I**-0.5), random(total, O)
        self.gram = torch.randn(M, S, total, generator=pick)
        self.fixed, self.usual, self.late = table(), table(2), table()
        b = len(rows)
        self.bias = np.zeros((M, b, k), np.float32) + np.float32(BIAS)[at][None, :, None]
        self.pages, self.slots = np.zeros((b, most), np.int32), np.zeros((b, most), np.int32)
        self.acts = np.zeros((b, most), np.int8)
        self.counts, self.asks = np.zeros((b, 2), np.int32), np.zeros((b, 5), np.int32)
        self.present = np.ones((M, len(ROWS), 4), np.bool_)
        self.present[1, 0, 1] = self.present[0, 6, 1] = False
        self.present = np.ascontiguousarray(self.present[:, at, :k])
        self.own = np.array(OWN, np.float32)[at]
        for row, (n, own) in enumerate(zip(at, rows, strict=True)):
            mine = [(page, j) for j, p in enumerate(own) for page in range(*pages[p : p + 2])]
            if BYPASS[n]:
                self.acts[row, len(mine) : len(mine) + 2] = ACTIVATIONS.index("gelu")
                mine += [(page, len(own)) for page in range(*pages[4:6])]
            self.pages[row, : len(mine)] = [page for page, _ in mine]
            self.slots[row, : len(mine)] = [j for _, j in mine]
            self.counts[row] = len(mine), len(own)
            if own and MODES[n] != FIXED:
                self.asks[row] = MODES[n], 0, S, TOP[n], RAW[n]
        self.rows, self.at, self.k = rows, at, k

    def run(self):
        """alpha [m, b, k] and y [b, o] of the kernels."""
        units = np.full((M, *self.pages.shape), np.nan, np.float32)
        alpha = np.zeros((M, len(self.rows), self.k), np.float32)
        tables = self.pages, self.slots, self.acts, self.counts, self.asks, self.present
        tables = *tables, self.fixed, self.bias, self.usual, self.own, self.late
        weigh(view(self.x), view(self.A), view(self.gram), *tables, 0, units, alpha)
        y = self.y.clone()
        add(view(y), units[1], view(self.B), self.pages, self.counts)
        return torch.from_numpy(alpha), y

    def slowly(self):
        """The same in float64, written as the equations are."""
        alpha, y = torch.zeros(M, len(self.rows), self.k).double(), self.y.double()
        for row, n in enumerate(self.at):
            for j in range(M):
                alpha[j, row, : len(self.rows[row])] = self._weights(row, n, j)
            for c in range(self.counts[row, 0]):
                u, place = self._unit(row, 1, self.pages[row, c]), self.slots[row, c]
                if place == len(self.rows[row]):
                    u, weight = torch.nn.functional.gelu(u), 1.0
                else:
                    weight = alpha[1, row, place]
                y[row] += weight * u * self.B[self.pages[row, c]].double()
        return alpha, y

    def _unit(self, row, j, page):
        return self.A[S + page, j].double() @ self.x[row].double()

    def _weights(self, row, n, j):
        k = len(self.rows[row])
        fixed = torch.from_numpy(self.fixed[j, row, :k]).double()
        if MODES[n] == FIXED or not k:
            return fixed
        scores = fixed + torch.from_numpy(self.late[j, row, :k]).double()
        q = self.A[:S, j].double() @ self.x[row].double()
        energy = torch.zeros(k).double()
        for c in range(self.counts[row, 0]):
            page, place = self.pages[row, c], self.slots[row, c]
            if place < k:
                u = self._unit(row, j, page)
                scores[place] += q @ self.gram[j, :, page].double() * u
                energy[place] += u**2
        here = torch.from_numpy(self.present[j, row, :k])
        mean, inverse = torch.from_numpy(self.usual[j, row, :k]).double().unbind(-1)
        z = ((0.5 * (energy + float(TINY)).log() - mean) * inverse).clamp(-MOST, MOST)
        scores = scores + OWN[n] * z * here
        if RAW[n]:
            return (scores + BIAS[n]) * here
        if TOP[n]:
            best = scores.masked_fill(~here, -torch.inf).topk(min(TOP[n], k)).indices
            scores[[c for c in range(k) if c not in best]] = -torch.inf
        taking = here | (MODES[n] == KEEPS)
        return (scores.masked_fill(~taking, -torch.inf).softmax(0) + BIAS[n]) * here


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_kernels_give_what_float64_gives(dtype):
    case = Case(dtype)
    (alpha, y), (expected, wanted) = case.run(), case.slowly()
    torch.testing.assert_close(alpha.double(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        y, wanted.to(dtype), rtol=1e-5, atol=1e-5 if dtype == torch.float32 else 2**-7
    )
    assert torch.equal(y[2], case.y[2])  # no adapter: not a bit changes


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_has_the_same_bits_in_any_batch(dtype):
    _, together = Case(dtype).run()
    for row in (0, 1, 3, 4, 5, 6):
        _, alone = Case(dtype, at=[row]).run()
        assert torch.equal(alone[0], together[row])


def test_bfloat16_is_rounded_as_torch_rounds_it():
    numbers = torch.randn(4000) * torch.logspace(-30, 30, 4000)
    y = torch.zeros(1, 4000, dtype=torch.bfloat16)
    units, pages = np.ones((1, 1), np.float32), np.zeros((1, 1), np.int32)
    add(view(y), units, numbers[None].numpy(), pages, np.ones((1, 2), np.int32))
    assert torch.equal(y[0], numbers.bfloat16())


def test_compiling_early_leaves_nothing_for_the_first_request():
    compile_for(torch.bfloat16)
    before = len(weigh.signatures), len(add.signatures)
    Case(torch.bfloat16).run()
    assert (len(weigh.signatures), len(add.signatures)) == before
