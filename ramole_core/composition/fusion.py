"""Fusion: the mean of the A's and the mean of the B's, one LoRA made of k.

y = W x + (1/k sum_j B_j) (1/k sum_j A_j) x           (LoraRetriever, arXiv 2402.09997)

This is mean(B) mean(A), not the mean of the products, and so it depends on how each LoRA's scale
is split between its A and its B (ours: folded into B), and, with unequal ranks, on which rank unit
is averaged with which: ranks are zero-padded at the end. Given weights w take the place of 1/k in
both means. Where an adapter lacks the module, both sums are still divided by k.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import pad

from ramole_core.composition.contract import Composition, Lora, register


@register
class Fusion(Composition):
    name = "fusion"
    merges = True

    def shares(
        self, present: Bool[Tensor, "module k"], scores: Sequence[float]
    ) -> Float[Tensor, "module k"]:
        return present.float() / max(present.shape[-1], 1)

    def merge(self, loras: Sequence[Lora | None], weights: Sequence[float] | None) -> Lora | None:
        k = len(loras)
        share = list(weights or [1 / k] * k)
        here = [(w, lora) for w, lora in zip(share, loras, strict=True) if lora is not None]
        if not here:
            return None
        r = max(lora.A.shape[0] for _, lora in here)
        A = torch.stack([w * pad(lora.A, (0, 0, 0, r - lora.A.shape[0])) for w, lora in here])
        B = torch.stack([w * pad(lora.B, (0, r - lora.B.shape[1])) for w, lora in here])
        return Lora(A=A.sum(0), B=B.sum(0))
