"""The plans of many requests at one linear layer, stacked so that one pass runs them all.

    u = A x,  q = A_r x                         one product, [R + s, i] for every request
    alpha = softmax((q gram * u) summed by owner + evidence), or the fixed weights
    update = B (alpha[owner] * u)               one product, [o, R]

Requests of different k, rank and method share the pass: R and s are padded to the largest in the
batch, and a padded unit has zero rows in A, B and the gram. Where every request has the same plan
object the stack has batch size 1 and broadcasts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import pad

from ramole_core.composition import Plan
from ramole_core.layers.surprise import Surprise, Votes, stack_surprises
from ramole_core.shapes import Inputs, Update, Weights


@dataclass(frozen=True)
class ModuleStack:
    """c is b, or 1 where all requests share one plan; kk is k + 1 (the merged slot)."""

    A: Float[Tensor, "c Rs i"]
    """The experts' units, then the routers' rows: Rs = R + s."""
    B: Float[Tensor, "c R o"]
    owner: Float[Tensor, "c R kk"]
    """One-hot: the expert a unit belongs to; last column: the merged slot; padding: zeros."""
    present: Bool[Tensor, "c k"]
    weights: Float[Tensor, "c kk"]
    """Fixed weights; the merged slot's is 1."""
    gram: Float[Tensor, "c s R"] | None
    """None where no request of the batch is gated here."""
    gated: Bool[Tensor, "c"]
    offset: Float[Tensor, "c k"]
    """Added to the scores of a gate."""
    keeps: Bool[Tensor, "c k"]
    """Adapters that a gate gives their share also where they lack the module."""
    surprise: Surprise | None
    """What else a gate adds to them; None where none of the batch does."""

    def __call__(self, x: Inputs, votes: Votes | None = None) -> tuple[Update, Weights]:
        """The update that the experts add to the layer's output, and the weights they got.

        `votes` are those of the layers below; this layer's are added to them.
        """
        R = self.B.shape[1]
        inner = _product(x.to(self.A.dtype), self.A.transpose(1, 2))
        u = inner[..., :R]
        alpha = self.weights[:, None, :]
        if self.gram is not None:
            alpha = self._gate(u, inner[..., R:], votes)
        scale = _product(alpha, self.owner.transpose(1, 2))
        update = _product((u * scale).to(self.B.dtype), self.B)
        return update, alpha[..., :-1].expand(*x.shape[:2], -1)

    def _gate(
        self, u: Float[Tensor, "b l R"], q: Float[Tensor, "b l s"], votes: Votes | None
    ) -> Tensor:
        gram = self.gram
        assert gram is not None
        matched = _product(q.to(gram.dtype), gram) * u
        scores = _product(matched, self.owner[..., :-1]) + self.offset[:, None, :]
        if self.surprise is not None:
            scores = scores + self.surprise(u, self.owner[..., :-1], self.present, votes)
        scores = scores.masked_fill(~(self.present | self.keeps)[:, None, :], -torch.inf)
        # a row without a gate may have no adapter at all: its softmax is never used, but may be nan
        soft = pad(scores.softmax(-1) * self.present[:, None, :], (0, 1), value=1.0)
        return torch.where(self.gated[:, None, None], soft, self.weights[:, None, :])

    def select(self, rows: Tensor) -> "ModuleStack":
        """The same stack for some of its requests, by index."""
        if self.A.shape[0] == 1:
            return self
        gram = None if self.gram is None else self.gram[rows]
        return ModuleStack(
            A=self.A[rows],
            B=self.B[rows],
            owner=self.owner[rows],
            present=self.present[rows],
            weights=self.weights[rows],
            gram=gram,
            gated=self.gated[rows],
            offset=self.offset[rows],
            keeps=self.keeps[rows],
            surprise=None if self.surprise is None else self.surprise.select(rows),
        )


def _product(x: Float[Tensor, "b l m"], y: Float[Tensor, "c m n"]) -> Float[Tensor, "b l n"]:
    """x y for each request; one plain matrix product where y is shared by all of them."""
    return x @ y[0] if y.shape[0] == 1 else torch.bmm(x.expand(y.shape[0], -1, -1), y)


def stack_plans(plans: Sequence[Plan | None], *, k: int) -> ModuleStack | None:
    """Stack one plan a request (None: no adapter here); `k` is the largest k in the batch.

    None where no request has anything to add at this layer.
    """
    some = next((plan for plan in plans if plan is not None), None)
    if some is None:
        return None
    if all(plan is some for plan in plans):
        plans = [some]
    R = max(p.A.shape[0] for p in plans if p is not None)
    gates = [p.gate for p in plans if p is not None and p.gate is not None]
    s = max((g.A.shape[0] for g in gates), default=0)
    rows = [_pad_plan(p, like=some, R=R, s=s, k=k) for p in plans]
    A, B, owner, present, weights, gram, offset = (
        torch.stack(part) for part in zip(*rows, strict=True)
    )
    device = some.A.device
    return ModuleStack(
        A=A,
        B=B,
        owner=owner.to(device),
        present=present.to(device),
        weights=weights.to(device),
        gram=gram if gates else None,
        gated=torch.tensor([p is not None and p.gate is not None for p in plans], device=device),
        offset=offset.to(device),
        keeps=torch.stack([_keeps(plan, k) for plan in plans]).to(device),
        surprise=stack_surprises(plans, B, owner.to(device), k=k),
    )


def _keeps(plan: Plan | None, k: int) -> Bool[Tensor, "k"]:
    """The adapters of a gate that is given evidence; others are masked where they are absent."""
    gate = None if plan is None else plan.gate
    count = 0 if gate is None or gate.offset is None else len(gate.offset)
    return torch.arange(k) < count


def _pad_plan(plan: Plan | None, *, like: Plan, R: int, s: int, k: int) -> tuple[Tensor, ...]:
    """A, B, owner, present, weights, gram and offset of one request, padded to R units, s and k."""
    i, o = like.A.shape[1], like.B.shape[0]
    wide = torch.promote_types(like.A.dtype, torch.float32)
    if plan is None:
        none = torch.zeros(k, dtype=torch.bool)
        zeros = like.A.new_zeros
        return (
            zeros(R + s, i),
            zeros(R, o),
            torch.zeros(R, k + 1, dtype=wide),
            none,
            pad(none.to(wide), (0, 1), value=1.0),
            zeros(s, R, dtype=wide),
            zeros(k, dtype=wide),
        )
    units, missing = plan.A.shape[0], k - plan.present.shape[0]
    # the merged slot is the plan's own k; in the stack it is the last column
    slot = torch.where(plan.owner == plan.present.shape[0], k, plan.owner)
    owner = torch.nn.functional.one_hot(slot, k + 1).to(wide)
    if plan.gate is None:
        router = plan.A.new_zeros(s, i)
        gram = plan.A.new_zeros(s, R, dtype=wide)
        offset = None
    else:
        router = pad(plan.gate.A.to(plan.A.dtype), (0, 0, 0, s - plan.gate.A.shape[0]))
        gram = pad(plan.gate.gram.to(wide), (0, R - units, 0, s - plan.gate.gram.shape[0]))
        offset = plan.gate.offset
    offset = torch.zeros(plan.present.shape[0]) if offset is None else offset
    return (
        torch.cat([pad(plan.A, (0, 0, 0, R - units)), router]),
        pad(plan.B, (0, R - units)).T.contiguous(),
        pad(owner, (0, 0, 0, R - units)),
        pad(plan.present, (0, missing)),
        pad(plan.weights.to(wide), (0, missing + 1)).index_fill(0, torch.tensor([k]), 1.0),
        gram,
        pad(offset.to(wide), (0, missing)),
    )
