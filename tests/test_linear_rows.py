"""W x of gates by the kernel, against the naive sum in float64; bit for bit what it is alone."""

import numpy as np
import pytest
import torch

from ramole_core.composition import Decision, Gate
from ramole_core.kernels.weight import Input
from ramole_core.layers.bank import Slot
from ramole_core.layers.batch_mix import RowMix
from ramole_core.layers.linear_rows import LinearRows, wide_rows

COUNTS, I = (3, 1, 40, 2), 37
SIZES = (5, 1, 3, 8)


@pytest.fixture
def world():
    pick = torch.Generator().manual_seed(3)
    x = torch.randn(sum(COUNTS), I, generator=pick)
    tables = [torch.randn(k, I, generator=pick) for k in SIZES]
    return x, tables


def row(k, *, W, per="module", score=None, here=True):
    gate = None if W is None else Gate(linear={"q": W}, per=per, score=score)
    decision = Decision(torch.full((2, k), 1 / k), gate=gate)
    slots = tuple(Slot(n, n, [n], torch.full((2,), here)) for n in range(k))
    return RowMix(slots, decision)


def rows_of(tables):
    return [row(len(W), W=W) for W in tables]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_token_meets_the_table_of_its_row(world, dtype):
    x, tables = world
    x = x.to(dtype)
    late = torch.zeros(len(x), 8)
    told = LinearRows(rows_of(tables), range(4), COUNTS, 8).write(late, "q", 1, Input(x))
    assert told == {}
    start = 0
    for count, W in zip(COUNTS, tables, strict=True):
        here, naive = slice(start, start + count), torch.zeros(count, 8, dtype=torch.float64)
        naive[:, : len(W)] = x[here].double() @ W.double().T
        torch.testing.assert_close(late[here].double(), naive, rtol=1e-5, atol=1e-5)
        start += count


def test_no_bit_depends_on_who_else_is_computed(world):
    x, tables = world
    late = torch.zeros(len(x), 8)
    LinearRows(rows_of(tables), range(4), COUNTS, 8).write(late, "q", 0, Input(x))
    start = 0
    for count, W in zip(COUNTS, tables, strict=True):
        for at in range(start, start + count):
            alone = torch.zeros(1, len(W))
            one = LinearRows([row(len(W), W=W)], [0], (1,), len(W))
            one.write(alone, "q", 0, Input(x[at : at + 1]))
            assert torch.equal(alone[0], late[at, : len(W)])
        start += count


def test_other_gates_are_left_to_others(world):
    _, (W, *_) = world
    kinds = [
        row(5, W=W, per="block"),
        row(5, W=W, score=lambda signal: signal.x[:, :5]),
        row(5, W=W.double()),
        row(5, W=None),
        row(5, W=W),
        row(5, W=W),
    ]
    assert LinearRows(kinds, range(5), [1] * 6, 5).rows == [4], "and rows that are not late"


def test_where_nobody_has_the_module_the_scores_are_0_and_rows_may_be_left_out(world):
    x, tables = world
    kinds = rows_of(tables)
    kinds[2] = row(3, W=tables[2], here=False)
    late = torch.zeros(len(x), 8)
    LinearRows(kinds, range(4), COUNTS, 8).write(late, "q", 0, Input(x), but={0})
    assert not late[:3].any() and late[3].any() and not late[4:44].any() and late[44:].any()
    LinearRows(kinds, range(4), COUNTS, 8).write(late.zero_(), "other", 0, Input(x))
    assert not late.any()


def test_a_row_that_is_not_finite_ends_alone(world):
    x, tables = world
    tables[1] = tables[1] * np.float32("inf")
    late = torch.zeros(len(x), 8)
    faults = LinearRows(rows_of(tables), range(4), COUNTS, 8).write(late, "q", 0, Input(x))
    assert list(faults) == [1] and "not finite" in str(faults[1])
    assert torch.isfinite(late).all() and not late[3].any() and late[:3].any() and late[44:].any()


def test_a_table_is_laid_out_once_and_goes_with_its_tensor(world):
    _, (W, *_) = world
    made = wide_rows(W)
    assert wide_rows(W) is made and len(made) == 8
    assert wide_rows(W.clone()) is not made
