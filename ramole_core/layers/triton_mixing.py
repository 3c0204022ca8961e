"""The mixing of a few tokens on a GPU, written for Triton: one launch for the layers of a group.

A program is one token, one module and one tile of its outputs. It walks the pages of its own row
and no others, as `kernels/mixing.py` does on a CPU:

    score = (q gram * u) summed by slot + offset + own z + late;   alpha = weigh(score)
    y += sum over pages of  alpha[slot] u B[page]

Every program of a token computes the same weights, which costs less than storing and loading them.
Importing this needs Triton.
"""

from collections.abc import Callable, Sequence
from typing import cast

import torch
import triton
import triton.language as tl
from torch import Tensor

from ramole_core.composition import activation

MASKED = tl.constexpr(-1e30)
"""As in `gate_softmax`."""
TINY, MAX_Z = tl.constexpr(activation.TINY), tl.constexpr(activation.MAX_Z)
MAX_MODULES = 4
"""Modules of a launch; a larger group takes several."""
PAGES, OUTPUTS = 16, 128
"""Pages that a program reads together, and outputs of its tile."""


@triton.jit
def _pages(inner, pages, acts, row, token, j, at, live, s, M, width, most):
    """Some pages of a row, and their units at a module after their activations."""
    page = tl.load(pages + row * most + at, mask=live, other=0)
    act = tl.load(acts + row * most + at, mask=live, other=0)
    u = tl.load(inner + (token * width + s + page) * M + j, mask=live, other=0.0).to(tl.float32)
    gelu = 0.5 * u * (1.0 + tl.math.erf(u * 0.7071067811865476))
    u = tl.where(act == 1, gelu, tl.where(act == 2, tl.maximum(u, 0.0), u))
    return page, u


@triton.jit
def _mix(
    y0, y1, y2, y3, B0, B1, B2, B3, o0, o1, o2, o3,
    inner, gram, late, row_of, pages, slots, acts, counts, asks, own,
    present, fixed, bias, usual, alphas, lengths,
    M, start_j, width, s, size, most, n, b, k, first,
    LATE: tl.constexpr, TRACED: tl.constexpr,
    K: tl.constexpr, S: tl.constexpr, R: tl.constexpr, O: tl.constexpr,
):  # fmt: skip
    token, place, tile = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    y, B, o = y0, B0, o0
    if place == 1:
        y, B, o = y1, B1, o1
    if place == 2:
        y, B, o = y2, B2, o2
    if place == 3:
        y, B, o = y3, B3, o3
    if tile * O >= o:
        return
    j = start_j + place
    row = tl.load(row_of + token)
    count, mine = tl.load(counts + row * 2), tl.load(counts + row * 2 + 1)
    kind, start, rank = (
        tl.load(asks + row * 5),
        tl.load(asks + row * 5 + 1),
        tl.load(asks + row * 5 + 2),
    )
    top, raw = tl.load(asks + row * 5 + 3), tl.load(asks + row * 5 + 4)
    kk, rr, ss = tl.arange(0, K), tl.arange(0, R), tl.arange(0, S)
    table = ((first + j) * b + row) * k + kk
    known = kk < k
    here = tl.load(present + table, mask=known, other=0) != 0
    given = tl.load(fixed + table, mask=known, other=0.0)

    routed = ss < rank
    q = tl.load(inner + (token * width + start + ss) * M + j, mask=routed, other=0.0).to(tl.float32)
    score, squares = tl.zeros([K], tl.float32), tl.zeros([K], tl.float32)
    for begin in range(0, count, R):
        at = begin + rr
        live = at < count
        page, u = _pages(inner, pages, acts, row, token, j, at, live, s, M, width, most)
        slot = tl.load(slots + row * most + at, mask=live, other=-1)
        G = tl.load(
            gram + (j * size + page[:, None]) * s + start + ss[None, :],
            mask=live[:, None] & routed[None, :],
            other=0.0,
        )
        v = tl.sum(G * q[None, :], axis=1) * u
        whose = slot[:, None] == kk[None, :]
        score += tl.sum(tl.where(whose, v[:, None], 0.0), axis=0)
        squares += tl.sum(tl.where(whose, (u * u)[:, None], 0.0), axis=0)

    score = tl.where(here, score, 0.0) + given
    mean = tl.load(usual + table * 2, mask=known, other=0.0)
    inverse = tl.load(usual + table * 2 + 1, mask=known, other=0.0)
    z = (0.5 * tl.log(squares + TINY) - mean) * inverse
    z = tl.minimum(tl.maximum(z, -MAX_Z), MAX_Z)
    score += tl.load(own + row) * tl.where(here, z, 0.0)
    if LATE:
        score += tl.load(late + (j * n + token) * k + kk, mask=known, other=0.0)

    allowed = here | ((kind == 2) & (kk < mine))
    score = tl.where(allowed, score, MASKED)
    better = (score[None, :] > score[:, None]) | (
        (score[None, :] == score[:, None]) & (kk[None, :] < kk[:, None])
    )
    rank_of = tl.sum(better.to(tl.int32), axis=1)
    score = tl.where((top > 0) & (rank_of >= top), MASKED, score)
    alpha = tl.exp(score - tl.max(score, axis=0))
    alpha = alpha / tl.sum(alpha, axis=0)
    alpha = tl.where(raw > 0, tl.where(score <= MASKED, 0.0, score), alpha)
    alpha += tl.load(bias + table, mask=known, other=0.0)
    alpha = tl.where(kind == 0, given, tl.where(allowed, alpha, 0.0))
    weight = tl.where(here, alpha, 0.0)
    if TRACED:
        if tile == 0:
            recorded = (j * n + token) * k + kk
            tl.store(alphas + recorded, alpha, mask=known)
            tl.store(lengths + recorded, tl.sqrt(squares) * tl.abs(weight), mask=known)

    oo = tile * O + tl.arange(0, O)
    inside = oo < o
    added = tl.zeros([O], tl.float32)
    for begin in range(0, count, R):
        at = begin + rr
        live = at < count
        page, u = _pages(inner, pages, acts, row, token, j, at, live, s, M, width, most)
        slot = tl.load(slots + row * most + at, mask=live, other=-1)
        whose = slot[:, None] == kk[None, :]
        scale = tl.sum(tl.where(whose, weight[None, :], 0.0), axis=1)
        scale = tl.where(slot == mine, 1.0, scale)  # a bypass
        unit = (scale * u).to(inner.dtype.element_ty).to(tl.float32)
        rows = tl.load(
            B + page[:, None] * o + oo[None, :], mask=live[:, None] & inside[None, :], other=0.0
        )
        added += tl.sum(unit[:, None] * rows.to(tl.float32), axis=0)
    old = tl.load(y + token * o + oo, mask=inside, other=0.0).to(tl.float32)
    tl.store(y + token * o + oo, (old + added).to(y.dtype.element_ty), mask=inside)


def mix_group(
    ys: Sequence[Tensor],
    Bs: Sequence[Tensor],
    *,
    inner: Tensor,
    gram: Tensor,
    late: Tensor | None,
    row_of: Tensor,
    tables: dict[str, Tensor],
    first: int,
    recorded: Tensor | None,
) -> None:
    """Add the rows' updates to each y [N, o].

    `inner` [N, s + pages, m] are x with the routers' rows and the pages' A, `gram` [m, pages, s];
    `tables` are those of `batch_mix.Rows`, and `first` the group's first module in them. `recorded`
    [2, m, N, k] takes weights and lengths.
    """
    n, width, m = inner.shape
    s, size = gram.shape[2], gram.shape[1]
    b, most = tables["pages"].shape
    k = tables["present"].shape[2]
    names = "row_of", "pages", "slots", "acts", "counts", "asks", "own"
    own = [row_of if name == "row_of" else tables[name] for name in names]
    present = tables["present"].view(torch.uint8)
    grids = [present, tables["fixed"], tables["bias"], tables["usual"]]
    alphas, lengths = (tables["fixed"],) * 2 if recorded is None else recorded
    for start in range(0, m, MAX_MODULES):
        part = range(start, min(m, start + MAX_MODULES))
        chosen = [part[p] if p < len(part) else part[0] for p in range(MAX_MODULES)]
        o = [Bs[j].shape[1] for j in chosen]
        grid = n, len(part), triton.cdiv(max(o), OUTPUTS)
        launch = cast("Callable[..., object]", _mix[grid])
        launch(
            *(ys[j] for j in chosen), *(Bs[j] for j in chosen), *o,
            inner, gram, gram if late is None else late, *own, *grids, alphas, lengths,
            m, start, width, s, size, most, n, b, k, first,
            LATE=late is not None, TRACED=recorded is not None,
            K=triton.next_power_of_2(max(k, 2)), S=triton.next_power_of_2(max(s, 2)),
            R=PAGES, O=OUTPUTS,
        )  # fmt: skip
