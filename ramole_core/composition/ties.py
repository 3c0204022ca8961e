"""TIES-merging: the mean of each adapter's largest changes where most agree on the sign.

    t_j <- the `density` of t_j's entries that are largest in size, 0 elsewhere    (trim)
    s   = sign(sum_j w_j t_j), 1 where that is 0                                   (elect)
    t   = mean of the t_j whose sign is s, entry by entry; 0 where there is none   (disjoint merge)
    y   = W x + scale * t x                               (TIES-merging, arXiv 2306.01708, sec. 4)

The paper's task vector tau is our t, its lambda `scale`, its k (in percent) 100 `density`. It trims
over the whole model, we (and PEFT) in every module. t is an A or a B, each merged on its own, or
with `products` their product B A (`task_vectors.py`). An adapter that lacks a module has no entry
there and does not count. The paper has no weights (w = 1/k). Weights of a request weigh the
election and the mean, which is then multiplied by the sum of all |w|: equal ones give the paper's
mean, (1, 0) the first adapter trimmed. (PEFT's weights have no part in the election, and the mean
is not divided by them.) One adapter alone is not trimmed.

Trained: nothing.

Cost: of a token that of one adapter of the largest rank. Of a request's first token, for three
adapters of rank 8 and 180 modules of a 135M model, 0.2 s of one core, and with `products` (the
eigenvectors of a Gram matrix for each module) about 10 s; the merge is kept for later requests.

Claimed: on average 2.3 points above the best earlier merge for T5 and ViT models that were
fine-tuned whole, 1.2 for (IA)^3, over seven to eleven tasks, with density 0.2, scale 1 where
nothing is tuned (unsure: from the abstract and memory).
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ramole_core.composition.decision import Ask, Decision
from ramole_core.composition.method import Composition, register
from ramole_core.composition.task_vectors import merge_decided
from ramole_core.methods import Method, Option


@register
class Ties(Composition):
    row = Method(
        "ties",
        "TIES-merging, arXiv 2306.01708",
        "one adapter of the largest changes of each, where most of them agree on the sign",
        options=(
            Option("density", 0.2, 0.001, 1.0, "the part of each adapter's entries that is kept"),
            Option("scale", 1.0, 0.0, 10.0, "times the merged change"),
            Option("products", False, help="merge the products B A, not A's and B's: slow, exact"),
            Option("rank", 0, 0, 256, "of the merged products; 0: the adapters' largest"),
        ),
    )
    merges = True

    def decide(self, ask: Ask) -> Decision:
        density = ask.options["density"]
        return merge_decided(ask, sparsify=lambda t, lora, half: trim(t, density), combine=agreeing)


def trim(t: Float[Tensor, "m n"], density: float) -> Float[Tensor, "m n"]:
    """The entries that are largest in size, at least one; equal ones are kept together."""
    size = t.abs()
    kept = max(int(density * t.numel()), 1)
    least = np.partition(size.flatten().numpy(), -kept)[-kept]
    return t * (size >= float(least))


def agreeing(
    every: Float[Tensor, "k m n"], weights: Float[Tensor, "k"], total: float
) -> Float[Tensor, "m n"]:
    """The weighted mean of those entries whose sign is that of the weighted sum, times `total`."""
    w = weights[:, None, None]
    weighted = every * w
    elected = torch.where(weighted.sum(0) >= 0, 1.0, -1.0).to(every)
    agree = weighted.sign() == elected
    share = (w.abs() * agree).sum(0)
    return total * torch.where(share > 0, (weighted * agree).sum(0) / share, 0.0)
