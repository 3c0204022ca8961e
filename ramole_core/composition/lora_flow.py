"""LoRA-Flow: weight the adapters by each block's input, equally for all of its modules.

    w^l = softmax(W_gate^l x_t^l) + b^l                       (LoRA-Flow, arXiv 2402.11455, eq. 4-5)
    h' = h + sum_j w_j^l Delta h_j

x_t^l is the hidden state that enters block l at token t, before the block's norm; W_gate is our W
[k, d], b our bias, Delta h_j our v_j = B_j A_j x. The weights need not sum to 1, since b is free.
As in the official code W_gate = 0 and b such that one adapter, its task's, begins with weight 1
and the others with 0; a pool of many tasks has no such adapter, and begins better from equal
weights (`first=0`). A block's weights are reported for each of its modules; an adapter that lacks
one keeps its share there.

Trained: W and b of every block, k (d + 1) numbers each, all adapters in the mix. The paper: 200
rows of the new task, 5 epochs, AdamW of 1e-3 or 1e-4, batches of 4 or 16.

Cost: one product of k d numbers a block and token: a seventh of a gate in every module.

Claimed: Llama-2-7b, a language's LoRA and a task's LoRA: better than fixed weights in each of six
generative tasks (Chinese, Russian, Spanish; MGSM and HumanEval). On average MGSM 37.6 and HumanEval
22.6, LoraHub 28.7 and 20.3 (numbers unsure).
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ramole_core.composition.decision import Ask, Decision, Gate, even
from ramole_core.composition.fixed_pool import FixedPool
from ramole_core.composition.method import register
from ramole_core.composition.sites import Sites, block_of
from ramole_core.methods import Method, Option, Value


@register
class LoraFlow(FixedPool):
    row = Method(
        "lora_flow",
        "LoRA-Flow, arXiv 2402.11455",
        "the input of each block weighs the adapters that it was trained on, alike in its modules",
        weights="_lora_flow",
        training=(
            Option("first", 1, 0, 1024, "place of the adapter that begins with weight 1; 0: none"),
        ),
    )

    def decide(self, ask: Ask) -> Decision:
        shapes = {f"{block}.W": (d,) for block, d in ask.sites.blocks.items()}
        made = self.tables(ask, {**shapes, **{f"{block}.b": () for block in ask.sites.blocks}})
        gate = Gate(
            linear={block: made[f"{block}.W"] for block in ask.sites.blocks},
            per="block",
            bias=torch.stack([made[f"{block_of(path)}.b"] for path in ask.sites.paths]),
        )
        return Decision(even(ask.present), gate=gate)

    def begin(
        self, sites: Sites, adapters: Sequence[tuple[str, str]], recipe: Mapping[str, Value]
    ) -> dict[str, Tensor]:
        """W = 0; b makes the `first` adapter's weight 1 and the others' 0, or is 0."""
        k, first = len(adapters), int(recipe["first"])
        bias = torch.zeros(k)
        if first:
            bias -= 1 / k
            bias[min(first, k) - 1] += 1
        tensors = {}
        for block, d in sites.blocks.items():
            tensors[f"{block}.W"] = torch.zeros(k, d)
            tensors[f"{block}.b"] = bias.clone()
        return tensors
