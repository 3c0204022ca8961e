"""DARE: drop a part of each adapter's changes at random, rescale the rest, and sum.

    t_j <- t_j * Bernoulli(1 - drop) / (1 - drop)              (DARE, arXiv 2311.03099, eq. 1-2)
    y = W x + scale * (sum_j w_j t_j) x,   w_j = 1/k           (task arithmetic of what is left)

The paper's delta is our t, its p `drop`: what is left has t as its mean, and what two adapters
changed seldom meets. The paper drops entries of fully fine-tuned models, 0.9 and more of them; t
here is an A or a B, or with `products` their product B A (`task_vectors.py`). Apart, both halves
are thinned, so 0.9 leaves 1 in 100 products: `drop` is 0.5 unless set. With `signs` what is left is
merged as TIES does (PEFT's dare_ties). The entries are drawn from a generator seeded by the
adapter's own content in that module, so the same request is the same bits, whatever else is in it.
Given weights take the place of 1/k. One adapter alone loses nothing.

Trained: nothing.

Cost: of a token that of one adapter of the largest rank. Of a request's first token, for three
adapters of rank 8 and 180 modules of a 135M model, 0.2 s of one core, and with `products` 8 s; the
merge is kept for later requests.

Claimed: 0.9 of the changes dropped at nearly no loss, 0.99 for large models; merged by task
arithmetic after it, WizardLM and WizardMath have 66.3 on GSM8K, 64.2 before (unsure: from memory).
"""

import hashlib
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ramole_core.composition.decision import Ask, Decision
from ramole_core.composition.lora import Lora
from ramole_core.composition.method import Composition, register
from ramole_core.composition.task_vectors import merge_decided
from ramole_core.composition.ties import agreeing
from ramole_core.methods import Method, Option


@register
class Dare(Composition):
    row = Method(
        "dare",
        "DARE, arXiv 2311.03099",
        "one adapter, the mean of all after half of each was dropped at random",
        options=(
            Option("drop", 0.5, 0.0, 0.999, "the part of each adapter's entries that is dropped"),
            Option("signs", False, help="merge what is left as TIES does"),
            Option("scale", 1.0, 0.0, 10.0, "times the merged change"),
            Option("products", False, help="merge the products B A, not A's and B's: slow, exact"),
            Option("rank", 0, 0, 256, "of the merged products; 0: the adapters' largest"),
        ),
    )
    merges = True

    def decide(self, ask: Ask) -> Decision:
        drop = ask.options["drop"]
        return merge_decided(
            ask,
            sparsify=lambda t, lora, half: t * kept(lora, half, t.shape, drop) / (1 - drop),
            combine=agreeing if ask.options["signs"] else added,
        )


def kept(lora: Lora, half: str, shape: Sequence[int], drop: float) -> Bool[Tensor, "m n"]:
    """The mask of kept entries of `A`, `B` or `BA`: always the same for the same LoRA."""
    content = hashlib.blake2b(half.encode(), digest_size=8)
    for tensor in (lora.A, lora.B):
        content.update(tensor.contiguous().numpy().tobytes())
    pick = torch.Generator().manual_seed(int.from_bytes(content.digest(), "little") >> 1)
    return torch.rand(tuple(shape), generator=pick, dtype=torch.float32) >= drop


def added(
    every: Float[Tensor, "k m n"], weights: Float[Tensor, "k"], total: float
) -> Float[Tensor, "m n"]:
    """The weighted sum."""
    return (every * weights[:, None, None]).sum(0)
