"""RouterLoRA: one more LoRA attends over the outputs of the others, token by token.

    v_i = B_i A_i x,   q = A_r x,   k_i = B_r^T v_i            (RAMoLE, arXiv 2406.16989, eq. 6-8)
    alpha = softmax_i(<q, k_i> / sqrt(s)),  y = W x + sum_i alpha_i v_i          (eq. 9-11)

We compute k_i as (B_r^T B_i)(A_i x), the Gram gate, so no v_i of size o is ever made for the gate.
The divisor is the root of the *router's* rank s; the router's own B_r A_r x is never added. The
softmax runs over the adapters that are present for the request in this module only.

`uniform_router` (B_r = 0, so 1/k over the adapters present) and `random_router` (a frozen random
one) are the controls that a trained router has to beat.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, einsum

from ramole_core.composition.contract import (
    Composition,
    Gate,
    Lora,
    ModuleRouter,
    Plan,
    concatenate,
    register,
)


class Routed(Composition):
    """Output-space mixing by a RouterLoRA; the subclasses differ only in which router they get."""

    def plan(
        self,
        loras: Sequence[Lora | None],
        *,
        weights: Sequence[float] | None = None,
        router: ModuleRouter | None = None,
    ) -> Plan | None:
        if weights is not None:
            return concatenate(loras, weights=weights)
        here = [lora for lora in loras if lora is not None]
        if not here:
            return None
        flat = [1 / len(here)] * len(loras)
        if router is None:
            return concatenate(loras, weights=flat)
        return concatenate(loras, weights=flat, gate=make_gate(here, router))


def make_gate(loras: Sequence[Lora], router: ModuleRouter) -> Gate:
    """The Gram gate of these experts: gram = B_r^T [B_1 ... B_k] / sqrt(s), in float32 or wider."""
    wide = torch.promote_types(router.B.dtype, torch.float32)
    B = torch.cat([lora.B for lora in loras], dim=1).to(wide)
    s = router.A.shape[0]
    return Gate(A=router.A, gram=einsum("os,oR->sR", router.B.to(wide), B) * s**-0.5)


def attend_naive(
    x: Float[Tensor, "l i"], loras: Sequence[Lora], router: ModuleRouter
) -> tuple[Float[Tensor, "l o"], Float[Tensor, "l k"]]:
    """The equations as printed, every v_i in full: the twin the Gram gate is tested against."""
    v = torch.stack([x @ lora.A.T @ lora.B.T for lora in loras], dim=1)
    q = x @ router.A.T
    keys = einsum("lko,os->lks", v, router.B)
    alpha = (einsum("ls,lks->lk", q, keys) * router.A.shape[0] ** -0.5).softmax(-1)
    return einsum("lk,lko->lo", alpha, v), alpha


@register
class Ramole(Routed):
    name = "ramole"
    router = "trained"


@register
class UniformRouter(Routed):
    name = "uniform_router"
    router = "zero"


@register
class RandomRouter(Routed):
    name = "random_router"
    router = "random"
