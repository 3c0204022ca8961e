"""One request's decision at one linear layer, in plain torch.

    u = A x,  q = A_r x
    score = (q gram * u) summed by adapter + W x + f + offset + own z,    gram = B_r^T B / sqrt(s)
    update = B (alpha * u) + B' act(A' x)

The rank units of the k adapters stand side by side in one A and one B, so that no output of an
adapter is made by itself. The served form is tested against this one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ramole_core.composition import Decision, Gate, Lora, LoraSet, Signal, Sites
from ramole_core.composition.activation import activation_z_of, log_norm
from ramole_core.layers.gate_softmax import ACTIVATIONS, late_scores, module_signal, weigh, wide_of


@dataclass(frozen=True, eq=False)
class PlainMix:
    """A decision and its LoRAs."""

    decision: Decision
    loras: tuple[LoraSet, ...]
    """With orthonormal columns in B, in the decision's order; a merge is one."""
    sites: Sites

    @property
    def k(self) -> int:
        return self.decision.weights.shape[1]


@dataclass(frozen=True)
class Mixed:
    """The mixing of one input."""

    update: Float[Tensor, "b l o"] | None
    """Update of the output; None: nothing is added."""
    alpha: Float[Tensor, "b l k"]
    scores: Float[Tensor, "b l k"] | None = None
    """Scores of a gate, before the softmax."""


def place(
    decision: Decision,
    loras: Sequence[LoraSet],
    sites: Sites,
    *,
    uploaded: Sequence[LoraSet] | None = None,
) -> PlainMix:
    """Place the decision over these adapters; `uploaded` are they as they came, where a merge needs
    them (by default the same)."""
    if decision.merge is None:
        return PlainMix(decision, tuple(loras), sites)
    every = loras if uploaded is None else uploaded
    make = decision.merge.make
    made = {path: make(path, [one.get(path) for one in every]) for path in sites.paths}
    return PlainMix(decision, ({p: lora for p, lora in made.items() if lora},), sites)


def mix_at(
    mix: PlainMix, path: str, x: Float[Tensor, "b l i"], block: Float[Tensor, "b l _"] | None
) -> Mixed:
    """What the adapters add to the module's output; `block` is the input of its block or parent,
    needed where the gate reads that."""
    decision, at = mix.decision, mix.sites.at[path]
    fixed = decision.weights[at].to(x.device, wide_of(x)).expand(*x.shape[:2], mix.k)
    if decision.merge is not None:
        return Mixed(_plus(None, mix.loras[0].get(path), x), fixed)
    loras = [one.get(path) for one in mix.loras]
    update, alpha, scores = None, fixed, None
    if any(lora is not None for lora in loras):
        A = torch.cat([lora.A for lora in loras if lora is not None])
        B = torch.cat([lora.B for lora in loras if lora is not None], dim=1)
    else:
        i, o = mix.sites.shapes[path]
        A, B = x.new_zeros(0, i), x.new_zeros(o, 0)
    ranks = [0 if lora is None else lora.A.shape[0] for lora in loras]
    u = x.to(A.dtype) @ A.T
    if decision.gate is not None and mix.k:
        scores = _scores(mix, path, x, u, B, ranks, block)
        alpha = _weights(decision.gate, scores, at, [rank > 0 for rank in ranks])
    if sum(ranks):
        owner = torch.repeat_interleave(torch.arange(len(ranks)), torch.tensor(ranks)).to(x.device)
        update = (u * alpha[..., owner]).to(B.dtype) @ B.T
    if decision.bypass is not None:
        act = ACTIVATIONS[decision.bypass.activation]
        update = _plus(update, decision.bypass.loras.get(path), x, act)
    return Mixed(update, alpha, scores)


def _scores(
    mix: PlainMix,
    path: str,
    x: Tensor,
    u: Float[Tensor, "b l R"],
    B: Float[Tensor, "o R"],
    ranks: list[int],
    block: Tensor | None,
) -> Float[Tensor, "b l k"]:
    gate, at, wide = mix.decision.gate, mix.sites.at[path], wide_of(x)
    assert gate is not None
    scores = x.new_zeros(*x.shape[:2], mix.k, dtype=wide)
    if gate.router is not None and (module := gate.router.modules.get(path)) is not None:
        q = (x.to(module.A.dtype) @ module.A.T).to(wide)
        gram = (module.B.to(wide).T @ B.to(wide)) * module.A.shape[0] ** -0.5
        scores = scores + _by_adapter((q @ gram) * u, ranks)
    if gate.offset is not None:
        scores = scores + gate.offset[at].to(scores)
    if gate.own:
        assert gate.usual is not None
        logs = log_norm(_by_adapter(u.to(wide).square(), ranks))
        z = activation_z_of(logs, gate.usual[at].to(scores).expand(*logs.shape, 2))
        scores = scores + gate.own * z * (torch.tensor(ranks) > 0).to(scores)
    if gate.late:
        if gate.per != "module":
            assert block is not None
            scores = scores + late_scores(gate, Signal(gate.scope(path), block), mix.k)
        elif sum(ranks):
            own = gate.score is not None  # W x needs no lengths of responses
            signal = module_signal(path, x, u.split(ranks, dim=-1)) if own else Signal(path, x)
            scores = scores + late_scores(gate, signal, mix.k)
    return scores


def _by_adapter(units: Float[Tensor, "b l R"], ranks: list[int]) -> Float[Tensor, "b l k"]:
    return torch.stack([part.sum(-1) for part in units.split(ranks, dim=-1)], dim=-1)


def _weights(gate: Gate, scores: Tensor, at: int, here: list[bool]) -> Float[Tensor, "b l k"]:
    allowed = torch.tensor(here, device=scores.device) | gate.keeps
    bias = None if gate.bias is None else gate.bias[at].to(scores)[None, None]
    return weigh(
        scores,
        allowed=allowed[None, None],
        top=gate.top,
        raw=not gate.softmax,
        bias=bias,
    )


def _plus(
    update: Tensor | None, lora: Lora | None, x: Tensor, act=lambda u: u
) -> Float[Tensor, "b l o"] | None:
    """update + B act(A x)."""
    if lora is None:
        return update
    more = act(x.to(lora.A.dtype) @ lora.A.T) @ lora.B.T
    return more if update is None else update + more
