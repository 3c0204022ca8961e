"""LoRA-Flow: weights for every layer and token, from the layer's input (arXiv 2402.11455, eq. 4).

w = softmax(W_gate x) + b,   y = W x + sum_j w_j B_j A_j x,   x in the gate: the block's input

One w for all projections of a block; W_gate = 0 and b so that the first LoRA starts with weight 1.
"""

import torch

from ramole_core.composition import (
    Decision,
    FixedPool,
    Gate,
    block_of,
    even,
    register,
)
from ramole_core.methods import Method, Option


@register
class LoraFlow(FixedPool):
    row = Method(
        "trial_lora_flow",
        "LoRA-Flow, arXiv 2402.11455",
        "the block's input weighs the adapters, the same for all of its projections",
        options=(Option("sharpness", 1.0, 0.0, 100.0, "times W_gate"),),
        weights="_trial_lora_flow",
        training=(Option("first", 1.0, 0.0, 2.0, "what the first adapter starts with"),),
    )

    def decide(self, ask):
        rows = self.places(ask)
        tensors = ask.trained.tensors
        linear = {
            block: tensors[f"{block}.W"][rows].float() * ask.options["sharpness"]
            for block in ask.sites.blocks
        }
        bias = torch.stack([tensors[f"{block_of(p)}.b"][rows].float() for p in ask.sites.paths])
        gate = Gate(linear=linear, per="block", bias=bias)
        return Decision(even(ask.present), gate=gate)

    def begin(self, sites, adapters, recipe):
        k, tensors = len(adapters), {}
        for block, width in sites.blocks.items():
            tensors[f"{block}.W"] = torch.zeros(k, width)
            tensors[f"{block}.b"] = torch.tensor([recipe["first"]] + [0.0] * (k - 1)) - 1 / k
        return tensors
