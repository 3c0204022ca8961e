"""CA-LoRA's recovery bypass beside the adapter that was inherited (arXiv 2307.07705, section 3.3).

y = W x + B A x + a2 GELU(a1 x),   a2 = 0 at the start

The adapter goes on training in the paper; here the bypass alone does.
"""

import torch

from ramole_core.composition import (
    Bypass,
    Decision,
    FixedPool,
    Lora,
    even,
    register,
)
from ramole_core.methods import Method, Option


@register
class CaLora(FixedPool):
    row = Method(
        "trial_ca_lora",
        "CA-LoRA, arXiv 2307.07705",
        "one adapter, and a bypass that recovers what the base lost",
        options=(Option("recovery", 1.0, 0.0, 4.0, "how much of the bypass"),),
        weights="_trial_ca_lora",
        training=(
            Option("rank", 3, 1, 64, "of the bypass"),
            Option("alpha", 6.0, 0.1, 100.0, "alpha/rank is folded into a2"),
        ),
    )

    def experts(self, k):
        return min(k, 1)

    def decide(self, ask):
        tensors, amount = ask.trained.tensors, ask.options["recovery"]
        loras = {
            path: Lora(A=tensors[f"{path}.a1"].float(), B=tensors[f"{path}.a2"].float() * amount)
            for path in ask.sites.paths
        }
        return Decision(
            even(ask.present),
            bypass=Bypass(loras, f"{ask.trained.checksum} {amount}"),
        )

    def begin(self, sites, adapters, recipe):
        rank, tensors = recipe["rank"], {}
        for path, (i, o) in sites.shapes.items():
            tensors[f"{path}.a1"] = torch.randn(rank, i) * i**-0.5
            tensors[f"{path}.a2"] = torch.zeros(o, rank)
        return tensors

    def finish(self, tensors, recipe):
        scale = recipe["alpha"] / recipe["rank"]
        return {n: t * scale if n.endswith(".a2") else t for n, t in tensors.items()}
