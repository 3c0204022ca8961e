"""A gate's scores that are computed in the forward, and its weights.

Weights are a softmax over the top n, or the scores themselves, and the bias. The terms W x and a
method's own score are computed for each request by itself, so that no request depends on another,
and a fault in one ends that request alone.

PyTorch chooses how it sums by the number of rows, so a method's own score is computed in tiles of
one size: a token at position p always stands at p mod TILE of a tile of TILE rows. The forms that
the mixing kernel computes are a table (`score_table`).
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from ramole_core.composition import Gate, Signal, UnitScore
from ramole_core.kernels.dots import COLUMNS
from ramole_core.kernels.gate import (
    ALIGNED,
    BLOCK_INPUTS,
    INPUTS,
    LENGTH,
    LINEAR,
    LOUDEST,
    PARENT_INPUTS,
)
from ramole_core.kernels.widen import widened
from ramole_core.layers.layout import Layout

MASKED = -1e30
"""The score of an adapter that may get no weight; finite, so that no row is nan."""
TILE = 8
"""Tokens of a tile; empty places hold a copy of one of them."""
FORMS = {"aligned": ALIGNED, "length": LENGTH, "loudest": LOUDEST, "linear": LINEAR}
SCOPE_FORMS = {"block": BLOCK_INPUTS, "parent": PARENT_INPUTS}
"""Forms of W x by `Gate.per`, where x is not the module's own input."""
_WIDE = WeakIdKeyDictionary()
"""The W of gates as the kernel reads them, as long as a gate has them."""


def weigh(
    scores: Float[Tensor, "*#b l k"],
    *,
    allowed: Bool[Tensor, "*#b #l k"],
    top: Int[Tensor, "*#b #l 1"] | int = 0,
    raw: Bool[Tensor, "*#b #l 1"] | bool = False,
    bias: Float[Tensor, "*#b #l k"] | None = None,
) -> Float[Tensor, "*b l k"]:
    """Weights of k adapters: softmax over the `top` best of those `allowed` (0: over all), or the
    scores where `raw`; then `bias` is added. An adapter that is not allowed gets 0.

    Of equal scores the first counts as the better.
    """
    scores = scores.masked_fill(~allowed, MASKED)
    if isinstance(top, Tensor) or top:
        place = scores.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)
        most = torch.as_tensor(top).to(place)
        scores = scores.masked_fill((place >= most) & (most > 0), MASKED)
    alpha = scores.softmax(-1)
    if isinstance(raw, Tensor) or raw:
        alpha = torch.where(torch.as_tensor(raw), scores.masked_fill(scores <= MASKED, 0.0), alpha)
    return (alpha if bias is None else alpha + bias) * allowed


ACTIVATIONS = {"gelu": torch.nn.functional.gelu, "relu": torch.nn.functional.relu}


def late_scores(gate: Gate, signal: Signal, k: int) -> Float[Tensor, "*l k"]:
    """W x + f(x, u, |v|) of one request at one module or block.

    Raises ValueError where the method's own score has the wrong shape or is not finite.
    """
    scores = signal.x.new_zeros(*signal.x.shape[:-1], k, dtype=wide_of(signal.x))
    if gate.linear is not None and (W := gate.linear.get(signal.path)) is not None:
        scores = scores + signal.x.to(W.dtype) @ W.to(signal.x.device).T
    if gate.score is not None:
        own = gate.score(signal)
        if own.shape != scores.shape:
            raise ValueError(f"a score of shape {tuple(own.shape)}, not {tuple(scores.shape)}")
        scores = scores + own
    if not bool(torch.isfinite(scores).all()):
        raise ValueError("scores that are not finite")
    return scores


def in_tiles(score: Callable[[Signal], Tensor], signal: Signal, start: int) -> Tensor:
    """`score` of a signal whose first token has position `start`, tile by tile: [l, k]."""
    l = signal.x.shape[0]
    found = []
    at = 0
    while at < l:
        place = (start + at) % TILE
        count = min(TILE - place, l - at)

        def tile(t: Tensor, at: int = at, count: int = count, place: int = place) -> Tensor:
            whole = t[at].expand(TILE, *t.shape[1:]).clone()
            if count > 1:  # else all of it is that token
                whole[place : place + count] = t[at : at + count]
            return whole

        norms = None if signal.norms is None else tile(signal.norms)
        part = Signal(signal.path, tile(signal.x), tuple(tile(u) for u in signal.u), norms)
        found.append(score(part)[place : place + count])
        at += count
    return torch.cat(found)


def module_signal(
    path: str, x: Float[Tensor, "*l i"], u: Sequence[Float[Tensor, "*l _"]]
) -> Signal:
    """A score's input at a module; B's columns are orthonormal, so |v| is |u|."""
    units = tuple(one.to(wide_of(one)) for one in u)
    norms = torch.stack([one.square().sum(-1).clamp(min=1e-30).sqrt() for one in units], dim=-1)
    return Signal(path, x, units, norms)


def wide_of(x: Tensor) -> torch.dtype:
    """Return float32, or a wider dtype."""
    return torch.promote_types(x.dtype, torch.float32)


def form_of(gate: Gate) -> int:
    """The form in which the kernel computes the gate's own score; 0: PyTorch computes it, or there
    is none."""
    if isinstance(gate.score, UnitScore):
        return FORMS[gate.score.form] if gate.linear is None else 0
    if gate.score is not None or not gate.linear:
        return 0
    exact = all(W.dtype == torch.float32 for W in gate.linear.values())
    return SCOPE_FORMS.get(gate.per, INPUTS) if exact else 0


def score_table(
    gate: Gate, layout: Layout, sizes: Sequence[int], here: Bool[Tensor, "module k"]
) -> np.ndarray | None:
    """The table of the gate's own score; None where the kernel computes none.

    Of a score by units [module, c, R] float32: T of all adapters side by side, times the scale; c
    is k where the form is `linear`, else 1. `sizes`: the rank units of each adapter in the bank, R
    together. Of W x [module] int64: the address of the W of each module, or of its block or parent;
    0 where there is none, or where x is the module's own and no adapter is `here`. The gate keeps
    what lies there.
    """
    form, score, paths = form_of(gate), gate.score, layout.flat
    if form > INPUTS and layout.has_experts:
        return None  # an expert has some of the tokens, of which its parent's input is
    if form >= INPUTS:
        assert gate.linear is not None
        rows = zip(paths, here.any(1).tolist(), strict=True)
        scopes = [gate.scope(path) if any_here or form != INPUTS else "" for path, any_here in rows]
        every = [gate.linear.get(scope) if scope else None for scope in scopes]
        found = [0 if W is None else wide_rows(W).data_ptr() for W in every]
        return np.array(found, np.int64)
    if not form or not isinstance(score, UnitScore):
        return None
    made = np.zeros((len(paths), len(sizes) if form == LINEAR else 1, sum(sizes)), np.float32)
    if form == LENGTH:
        made[:] = score.scale
        return made
    starts = np.cumsum([0, *sizes])
    for place, path in enumerate(paths):
        for start, T in zip(starts, score.tables[path], strict=False):
            made[place, :, start : start + T.shape[1]] = T.detach().float().cpu().numpy()
    if form == ALIGNED:
        made *= np.float32(score.scale)
    return made


def wide_rows(W: Tensor) -> Tensor:
    """W [k, i] in float32 and the order of `dots`, k rounded up; made once for each tensor."""
    found = _WIDE.get(W)
    if found is None:
        k, i = W.shape
        whole = torch.zeros(-(-k // COLUMNS) * COLUMNS, i)
        whole[:k] = W
        found = _WIDE[W] = widened(whole)
    return found
