"""A gate's scores that are computed in the forward, and its weights.

Weights are a softmax over the top n, or the scores themselves, and the bias. The terms W x and a
method's own score are computed for each request by itself, so that no request depends on another,
and a fault in one ends that request alone.

PyTorch chooses how it sums by the number of rows, so a method's own score is computed in tiles of
one size: a token at position p always stands at p mod TILE of a tile of TILE rows.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ramole_core.composition import Gate, Signal

NEVER = -1e30
"""The score of an adapter that may get no weight; finite, so that no row is nan."""
TILE = 8
"""Tokens; places without one hold a copy of one that is there."""


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
    scores = scores.masked_fill(~allowed, NEVER)
    if isinstance(top, Tensor) or top:
        place = scores.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)
        most = torch.as_tensor(top).to(place)
        scores = scores.masked_fill((place >= most) & (most > 0), NEVER)
    alpha = scores.softmax(-1)
    if isinstance(raw, Tensor) or raw:
        alpha = torch.where(torch.as_tensor(raw), scores.masked_fill(scores <= NEVER, 0.0), alpha)
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
    """float32, or what is wider."""
    return torch.promote_types(x.dtype, torch.float32)
