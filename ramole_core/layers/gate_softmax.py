"""From scores to weights: softmax over the top n, or the scores themselves, and the bias."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

NEVER = -1e30
"""The score of an adapter that may get no weight; finite, so that no row is nan."""


def weigh(
    scores: Float[Tensor, "*#b l k"],
    *,
    allowed: Bool[Tensor, "*#b #l k"],
    top: Int[Tensor, "*#b #l 1"] | int = 0,
    raw: Bool[Tensor, "*#b #l 1"] | bool = False,
    bias: Float[Tensor, "*#b #l k"] | None = None,
) -> Float[Tensor, "*b l k"]:
    """Weights of k adapters: softmax over the `top` best of those `allowed` (0: over all), or the
    scores where `raw`; then `bias` is added. Who is not allowed gets 0.

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
