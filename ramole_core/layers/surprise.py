"""How surprising an adapter's response is, and what the layers below made of it.

    z = (log |v| - mean) / spread,   v = B A x, mean and spread over everyday inputs, |z| at most 4
    a gate's score gets   own z + below V,   V the mean of z over all modules of the layers below

An adapter answers inputs of its own kind with larger updates than others, but some adapters are
loud everywhere; what counts is how much louder than its own usual one is. One module knows little;
a layer's gate hears all those below it, at the same token. This is the plain form, differentiable.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ramole_core.composition import Plan

TINY = 1e-12
"""Added to |v|^2 before its logarithm is taken."""
MOST = 4.0
"""A surprise is between - and + this."""


@dataclass
class Votes:
    """Surprises of one forward by token: those of the layers below, and of the layer that runs."""

    below: Tensor | None = None
    """[2, b, l, k]: sum and number."""
    here: list[Tensor] = field(default_factory=list)
    """[2, b, l, k] each."""
    layer: int = -1

    def enter(self, layer: int) -> None:
        """A module of this layer is next."""
        if layer != self.layer and self.here:
            added = torch.stack(self.here).sum(0)
            self.below = added if self.below is None else self.below + added
            self.here = []
        self.layer = layer


@dataclass(frozen=True)
class Surprise:
    """Of the experts of many requests at one linear layer; c is b, or 1 where all share a plan."""

    inner: Float[Tensor, "c R R"]
    """B^T B within each expert: |v|^2 = u inner u."""
    usual: Float[Tensor, "c k 2"]
    """Mean and spread of log |v|."""
    gains: Float[Tensor, "c 2"]
    """own, below; 0 in rows whose gate asks for neither."""

    def __call__(
        self,
        u: Float[Tensor, "b l R"],
        owner: Float[Tensor, "c R k"],
        present: Bool[Tensor, "c k"],
        votes: Votes | None,
    ) -> Float[Tensor, "b l k"]:
        """What is added to the scores; the votes grow."""
        u = u.to(owner.dtype)
        energy = (((u @ self.inner) * u) @ owner).clamp(min=0)
        mean, spread = self.usual[:, None, :, 0], self.usual[:, None, :, 1]
        z = ((0.5 * torch.log(energy + TINY) - mean) / spread).clamp(-MOST, MOST)
        z = z * present[:, None]
        below = torch.zeros_like(z)
        if votes is not None:
            if votes.below is not None:
                below = votes.below[0] / votes.below[1].clamp(min=1)
            votes.here.append(torch.stack([z, present[:, None].expand_as(z).to(z)]))
        gains = self.gains[:, None, None]
        return gains[..., 0] * z + gains[..., 1] * below

    def select(self, rows: Tensor) -> "Surprise":
        """The same for some of the requests, by index."""
        return Surprise(self.inner[rows], self.usual[rows], self.gains[rows])


def stack_surprises(
    plans: Sequence[Plan | None],
    B: Float[Tensor, "c R o"],
    owner: Float[Tensor, "c R kk"],
    *,
    k: int,
) -> Surprise | None:
    """Those of many plans; None where no gate asks."""
    gates = [None if plan is None else plan.gate for plan in plans]
    if not any(gate is not None and gate.usual is not None for gate in gates):
        return None
    usual = owner.new_tensor([0.0, 1.0]).repeat(len(gates), k, 1)
    gains = [owner.new_zeros(2) for _ in gates]
    for row, gate in enumerate(gates):
        if gate is not None and gate.usual is not None and gate.gains is not None:
            usual[row, : len(gate.usual)] = gate.usual.to(usual)
            gains[row] = gate.gains.to(usual)
    wide = B.to(owner.dtype)
    same = owner[..., :-1] @ owner[..., :-1].transpose(1, 2)
    return Surprise((wide @ wide.transpose(1, 2)) * same, usual, torch.stack(gains))
