"""The activation z-score of an adapter: how much larger its response is than its usual one.

    z = (log |v| - mean) / deviation,   v = B A x;   |z| at most 4

mean and standard deviation are those of log |v| over everyday inputs (`engine/reference.py`). An
adapter answers inputs of its own kind with larger updates than others, but some adapters are loud
everywhere; what counts is how much louder than its own usual one is. (SEQR, arXiv 2509.18093,
z-scores norms in the same way, in other units.)
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

TINY = 1e-12
"""Added to |v|^2 before its logarithm is taken."""
MAX_Z = 4.0
"""A z-score is between - and + this."""


@dataclass(frozen=True)
class Response:
    """An adapter's response to the prompt's last token in the bare base."""

    log_norms: Float[Tensor, "module"]
    """log |B A x|."""
    usual: Float[Tensor, "module 2"]
    """Mean and standard deviation of log |B A x| over everyday inputs."""
    present: Bool[Tensor, "module"]
    """False where the adapter lacks the module."""

    @property
    def activation_z(self) -> float:
        """z, averaged over the adapter's modules; 0 where it has none."""
        z = activation_z_of(self.log_norms, self.usual)[self.present]
        return float(z.mean()) if len(z) else 0.0


def log_norm(squares: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """log |v| from |v|^2."""
    return 0.5 * torch.log(squares + TINY)


def activation_z_of(
    log_norms: Float[Tensor, "*shape"], usual: Float[Tensor, "*shape 2"]
) -> Float[Tensor, "*shape"]:
    """z of each response."""
    mean, deviation = usual.unbind(-1)
    return ((log_norms - mean) / deviation).clamp(-MAX_Z, MAX_Z)
