"""MoE: the learned router that LoraRetriever and RAMoLE are compared with, soft or of the best.

    p = softmax(W_r x),   w = p, or the n best of p, scaled to sum to 1
    y = W x + sum_j w_j B_j A_j x
    loss = language model + beta k sum_j f_j p_j    (Switch Transformers, arXiv 2101.03961, eq. 4-6)

The papers (arXiv 2402.09997, 2406.16989) name three baselines, MoE Top1, Top3 and Soft: experts are
the LoRAs, a router is learnt over all of them. Their equation is not at hand; this is the usual one
(unsure: a router for each linear layer, as their RouterLoRA; trained soft and cut to its best in
serving, where they may have trained each of the three). f_j is the share of tokens whose best
adapter is j, p_j the mean of its weight over the answers' tokens of a batch: the balance loss is 1
where all are used alike. The router begins at 0, the equal mixture. Unlike MeteoRA's gate it is
trained without a row's own adapter. An adapter that lacks a module keeps its share there.

Trained: W_r of every module, [k, i], with all adapters in the mix; an adapter that comes later
means training again.

Cost: one product of k i numbers a module and token beside the k adapters' own k r (i + o).

Claimed: as RAMoLE's baseline, Llama-2-7b, 48 LoRAs, overall: Soft 39.8, the lowest of the
three (the figures of Top1 and Top3 are not at hand), where RAMoLE has 51.8, mixture 49.8 and the
right LoRA alone 55.4.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ramole_core.composition.decision import Ask, Decision, Gate, even
from ramole_core.composition.fixed_pool import FixedPool, inputs_of
from ramole_core.composition.method import Watched, register
from ramole_core.composition.sites import Sites
from ramole_core.methods import Method, Option, Value


@register
class MixtureOfExperts(FixedPool):
    row = Method(
        "moe",
        "LoraRetriever, arXiv 2402.09997, its baseline",
        "a learned router in every linear layer weighs the adapters that it was trained on",
        options=(Option("top", 0, 0, 64, "n, how many adapters share the weight; 0: all, soft"),),
        weights="_moe",
        training=(Option("balance", 0.01, 0.0, 100.0, "beta, of the balance loss"),),
    )

    def decide(self, ask: Ask) -> Decision:
        W = self.linear(ask, inputs_of(ask.sites))
        return Decision(even(ask.present), gate=Gate(linear=W, top=int(ask.options["top"])))

    def begin(
        self, sites: Sites, adapters: Sequence[tuple[str, str]], recipe: Mapping[str, Value]
    ) -> dict[str, Tensor]:
        """W_r = 0."""
        return {f"{path}.W": torch.zeros(len(adapters), i) for path, i in inputs_of(sites).items()}

    def loss(self, watched: Watched, recipe: Mapping[str, Value]) -> Tensor | float:
        each = []
        for alpha in watched.alpha.values():
            p = alpha[watched.answers]
            k = p.shape[-1]
            f = F.one_hot(p.argmax(-1), k).to(p).mean(0)
            each.append(k * (f * p.mean(0)).sum())
        return recipe["balance"] * torch.stack(each).mean()
