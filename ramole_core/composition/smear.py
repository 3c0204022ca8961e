"""SMEAR: weight adapters by a prompt's mean input to each block, and merge them into one.

    p = softmax(W_r n(mean_t x_t))                                        (SMEAR, arXiv 2306.03745)
    A = sum_j p_j A_j,   B = sum_j p_j B_j,   y = W x + B A x

The experts are the LoRAs, x_t is what enters the block at token t, and one p is for all linear
layers of a block. n is a LayerNorm, as in the authors' router (r-three/smear); the gain that it
learns lies in our W_r, its offset is left out. As in `fusion`, which this is with p = 1/k, ranks
are zero-padded and each LoRA's scale is folded into its B. B A is not the mixture of the products:
cross terms p_i p_j B_i A_j arise. An adapter that lacks a module gives nothing to the sums there
and keeps its share. Given weights take the place of p.

Ours to say: the paper's experts are trained with the router and see the whole input, an encoder's.
A decoder that streams its answer does not know the whole sequence, so ours takes the mean over the
prompt's tokens, of its own turn alone, as the bare base reads them; p is that of the whole answer.
The paper's x_t is what its adapters made of the layers below.

Trained: W_r of every block, [k, d], over all adapters, which stay as they are; an adapter that
comes later means training again. It begins at 0, as `fusion`, where the paper draws it. The paper's
expert dropout is `--dropout`.

Cost: of a request, the prompt read once more by the bare base, and one merge in every module, made
anew for each prompt (a second for a pool of 21 adapters on one core); of a token, one LoRA
of the largest rank.

Claimed: T5 on GLUE and ResNet on DomainNet, experts trained with their router: better than discrete
routers whose gradient is estimated, and than routing by the task's name. As RAMoLE's baseline,
Llama-2-7b, 48 LoRAs, overall: 39.1, where RAMoLE has 51.8 and mixture 49.8 (how its router was
trained there: unsure).
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ramole_core.composition.decision import Ask, Decision, Merge
from ramole_core.composition.fixed_pool import FixedPool
from ramole_core.composition.fusion import fuse, fused
from ramole_core.composition.lora import Lora, widened
from ramole_core.composition.method import register
from ramole_core.composition.sites import Sites, block_of
from ramole_core.methods import Method, Option, Value


@register
class Smear(FixedPool):
    row = Method(
        "smear",
        "SMEAR, arXiv 2306.03745",
        "one adapter of averaged A's and B's in each block, weighed by the prompt's mean input",
        weights="_smear",
        training=(Option("start", 0.0, 0.0, 1.0, "deviation of W_r at its start; 0: equal p"),),
    )
    merges = True
    reads_prompt = True

    def decide(self, ask: Ask) -> Decision:
        if ask.weights is not None:
            return fused(ask)
        assert ask.means is not None  # it `reads_prompt`
        W, p = self.linear(ask, ask.sites.blocks), {}
        for block, d in ask.sites.blocks.items():
            p[block] = (W[block] @ F.layer_norm(ask.means[block].to(W[block]), (d,))).softmax(-1)

        def make(path: str, loras: Sequence[Lora | None]) -> Lora | None:
            wide = [None if lora is None else widened(lora) for lora in loras]
            return fuse(wide, p[block_of(path)].unbind())

        return Decision(
            torch.stack([p[block_of(path)] for path in ask.sites.paths]),
            merge=Merge(make, ask.rank),
        )

    def begin(
        self, sites: Sites, adapters: Sequence[tuple[str, str]], recipe: Mapping[str, Value]
    ) -> dict[str, Tensor]:
        """W_r normal, or 0."""
        k, start = len(adapters), float(recipe["start"])
        return {f"{block}.W": start * torch.randn(k, d) for block, d in sites.blocks.items()}
