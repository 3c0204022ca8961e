"""Fusion: one LoRA with the mean of the A's and the mean of the B's.

y = W x + (1/k sum_j B_j) (1/k sum_j A_j) x           (LoraRetriever, arXiv 2402.09997)

This is mean(B) mean(A), not the mean of the products, and so it depends on how each LoRA's scale
is split between its A and its B (ours: folded into B), and, with unequal ranks, on which rank unit
is averaged with which: ranks are zero-padded at the end. Given weights w take the place of 1/k in
both means. Where an adapter lacks the module, both sums are still divided by k.

AdapterSoup (arXiv 2302.07027) averages the weights of the adapters that fit a text, each parameter
on its own; its adapters are bottlenecks, and for LoRAs that is this mean of halves. What it adds is
how they are chosen, by clusters of texts or by similarity, which is retrieval's part here. So it is
no method of its own.

Trained: the retriever.

Cost: one merge a request, at most the largest rank; then one LoRA a token.

Claimed: Llama-2-7b, 48 tasks, mean of the 56 rows of RAMoLE's table, IID / OOD: 41.6 / 40.2.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from ramole_core.composition.decision import Ask, Decision, Merge
from ramole_core.composition.lora import Lora
from ramole_core.composition.method import Composition, register
from ramole_core.methods import Method


@register
class Fusion(Composition):
    row = Method(
        "fusion",
        "LoraRetriever, arXiv 2402.09997",
        "one adapter made of the mean of the A's and the mean of the B's",
    )
    merges = True

    def decide(self, ask: Ask) -> Decision:
        return fused(ask)


def fused(ask: Ask) -> Decision:
    """One LoRA made with the request's weights, or with 1/k each."""
    merge = Merge(lambda path, loras: fuse(loras, ask.shares), ask.rank)
    return Decision(ask.everywhere(ask.shares), merge=merge)


def fuse(loras: Sequence[Lora | None], shares: Sequence[float | Tensor]) -> Lora | None:
    """The weighted sums of the A's and of the B's; None where no adapter has the module."""
    here = [(w, lora) for w, lora in zip(shares, loras, strict=True) if lora is not None]
    if not here:
        return None
    r = max(lora.A.shape[0] for _, lora in here)
    A = torch.stack([pad(w * lora.A, (0, 0, 0, r - lora.A.shape[0])) for w, lora in here])
    B = torch.stack([pad(w * lora.B, (0, r - lora.B.shape[1])) for w, lora in here])
    return Lora(A=A.sum(0), B=B.sum(0))
