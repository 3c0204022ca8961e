"""A parallel adapter: further units with an activation, beside the LoRA (arXiv 2110.04366, eq. 5).

y = W x + B A x + s W_up ReLU(W_down x),   W_up = 0 at the start
"""

import torch

from ramole_core.composition import Bypass, Decision, FixedPool, Lora, even, register
from ramole_core.methods import Method, Option


@register
class Parallel(FixedPool):
    row = Method(
        "trial_parallel",
        "parallel adapter, arXiv 2110.04366",
        "one adapter, and units with an activation beside it",
        options=(Option("s", 1.0, 0.0, 4.0, "how much of them"),),
        weights="_trial_parallel",
        training=(Option("rank", 3, 1, 64, "how many"),),
    )

    def experts(self, k):
        return min(k, 1)

    def decide(self, ask):
        tensors, s = ask.trained.tensors, ask.options["s"]
        loras = {
            path: Lora(A=tensors[f"{path}.down"].float(), B=tensors[f"{path}.up"].float() * s)
            for path in ask.sites.paths
        }
        bypass = Bypass(loras, f"{ask.trained.checksum} {s}", activation="relu")
        return Decision(even(ask.present), bypass=bypass)

    def begin(self, sites, adapters, recipe):
        rank, tensors = recipe["rank"], {}
        for path, (i, o) in sites.shapes.items():
            tensors[f"{path}.down"] = torch.randn(rank, i) * i**-0.5
            tensors[f"{path}.up"] = torch.zeros(o, rank)
        return tensors
