"""The terms of a gate computed in the forward: W x, and a score of the method's own.

They are computed for each request by itself, so that nobody feels anybody, and a fault in one ends
that request alone.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ramole_core.composition import Gate, Signal

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
