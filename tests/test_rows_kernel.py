"""The compiled kernels against float64, in both dtypes, and a row against itself in any batch."""

import numpy as np
import pytest
import torch

from ramole_core.layers.rows_kernel import MOST, TINY, add, compile_for, view, weigh

M, I, O, S, RANKS = 2, 37, 41, 3, (2, 5, 1, 8)
ROWS = ((0, 1, 3), (2,), (), (3, 2, 0), (1,))
GATED = (True, True, True, False, False)
GAINS = ((0.7, 1.5), (0, 0), (0, 0), (0.5, 0.5), (0, 0))  # the fourth row has no gate: not read


class Case:
    def __init__(self, dtype, rows=ROWS, gated=GATED, at=None):
        pick = torch.Generator().manual_seed(7)
        at = list(range(len(rows))) if at is None else at
        pages = np.cumsum((0, *RANKS))
        total, most, k = pages[-1], max(RANKS) + 8, max(map(len, rows))

        def random(*shape, scale=1.0):
            return (torch.randn(*shape, generator=pick) * scale).to(dtype)

        self.x, self.y = random(len(ROWS), I)[at], random(len(ROWS), O)[at]
        self.A, self.B = random(S + total, M, I, scale=I**-0.5), random(total, O)
        self.gram = torch.randn(M, S, total, generator=pick)
        fixed = torch.rand(M, len(ROWS), 4, generator=pick)[:, at]
        b = len(rows)
        self.pages, self.slots = np.zeros((b, most), np.int32), np.zeros((b, most), np.int32)
        self.counts, self.asks = np.zeros((b, 2), np.int32), np.zeros((b, 3), np.int32)
        self.present = np.ones((M, b, k), np.bool_)
        self.present[1, 0, 1 % k] = len(ROWS) != b or k < 2
        self.fixed = np.ascontiguousarray(fixed[..., :k].numpy())
        usual = torch.randn(M, len(ROWS), 4, 2, generator=pick)[:, at, :k]
        self.usual = np.ascontiguousarray(usual.numpy())
        self.gains = np.array(GAINS, np.float32)[at]
        votes = torch.rand(2, 2, len(ROWS), 4, generator=pick)[:, :, at, :k] + 1
        self.votes = np.ascontiguousarray(votes.numpy())
        for row, own in enumerate(rows):
            mine = [(page, n) for n, p in enumerate(own) for page in range(*pages[p : p + 2])]
            self.pages[row, : len(mine)] = [page for page, _ in mine]
            self.slots[row, : len(mine)] = [n for _, n in mine]
            self.counts[row] = len(mine), len(own)
            self.asks[row] = (0, S, 1) if gated[row] and own else (0, 0, 0)
        self.rows, self.k = rows, k

    def run(self):
        """alpha [m, b, k] and y [b, o] of the kernels."""
        units = np.full((M, *self.pages.shape), np.nan, np.float32)
        alpha = np.zeros((M, len(self.rows), self.k), np.float32)
        tables = self.pages, self.slots, self.counts, self.asks, self.present, self.fixed
        tables = *tables, self.usual, self.gains
        votes = self.votes.copy()
        weigh(view(self.x), view(self.A), view(self.gram), *tables, 0, votes, units, alpha)
        y = self.y.clone()
        add(view(y), units[1], view(self.B), self.pages, self.counts)
        return torch.from_numpy(alpha), y

    def slowly(self):
        """The same in float64, written as the equations are."""
        alpha, y = torch.zeros(M, len(self.rows), self.k).double(), self.y.double()
        x, A, B, gram = self.x.double(), self.A.double(), self.B.double(), self.gram.double()
        for row, own in enumerate(self.rows):
            for j in range(M):
                q = A[:S, j] @ x[row]
                parts = [
                    self.pages[row, : self.counts[row, 0]][self._of(row, n)]
                    for n in range(len(own))
                ]
                responses = [A[S + p.astype(int), j] @ x[row] for p in parts]
                if self.asks[row, 2]:
                    scores = torch.stack(
                        [
                            (q @ gram[j][:, p.astype(int)]) @ u
                            for p, u in zip(parts, responses, strict=True)
                        ]
                    )
                    scores = scores + torch.from_numpy(self.fixed[j, row, : len(own)]).double()
                    scores = scores + self._surprises(j, row, responses)
                    here = torch.from_numpy(self.present[j, row, : len(own)])
                    weights = scores.masked_fill(~here, -torch.inf).softmax(0)
                else:
                    weights = torch.from_numpy(self.fixed[j, row, : len(own)]).double()
                alpha[j, row, : len(own)] = weights
                if j == 1:
                    for w, p, u in zip(weights, parts, responses, strict=True):
                        y[row] += w * u @ B[p.astype(int)]
        return alpha, y

    def _surprises(self, j, row, responses):
        """own z + below V: the first module votes for nobody but the layers above."""
        own, below = GAINS[row] if len(self.rows) > 1 else (0, 0)
        mean, inverse = torch.from_numpy(self.usual[j, row, : len(responses)]).double().unbind(-1)
        logs = torch.stack([0.5 * (u @ u + float(TINY)).log() for u in responses])
        z = ((logs - mean) * inverse).clamp(-float(MOST), float(MOST))
        votes = torch.from_numpy(self.votes[0, :, row, : len(responses)]).double()
        return own * z + below * votes[0] / votes[1]

    def _of(self, row, place):
        return self.slots[row, : self.counts[row, 0]] == place


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
    for row in (1, 3, 4):
        _, alone = Case(dtype, rows=ROWS[row : row + 1], gated=GATED[row : row + 1], at=[row]).run()
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
