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
from jaxtyping import Bool, Float
from torch import Tensor, einsum

from ramole_core.composition.contract import (
    Composition,
    Lora,
    ModuleRouter,
    even_shares,
    register,
)


class Routed(Composition):
    """Output-space mixing by a RouterLoRA; the subclasses differ only in which router they get."""

    def shares(
        self, present: Bool[Tensor, "module k"], scores: Sequence[float]
    ) -> Float[Tensor, "module k"]:
        return even_shares(present)


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
