"""Similarity-weighted mixture: softmax of the retriever's similarities, the same for every token.

y = W x + sum_j w_j B_j A_j x,   w = softmax(sim / temperature)

The control between selection (temperature 0) and mixture (temperature infinite); 0.05 is the
temperature that sentence encoders are usually tuned at. An adapter that lacks a module keeps its
share there, and the base has it.

Trained: the retriever.

Cost: k LoRAs a token.

Claimed: nothing; it is a control.
"""

import torch

from ramole_core.composition.decision import Ask, Decision
from ramole_core.composition.method import Composition, register
from ramole_core.methods import Method, Option


@register
class Similarity(Composition):
    row = Method(
        "similarity",
        "control",
        "the mean of the adapters' outputs, weighted by their similarity to the prompt",
        options=(
            Option("temperature", 0.05, 0.001, 10.0, "how flat the weights are: large is 1/k"),
        ),
    )
    weighs_similarity = True

    def decide(self, ask: Ask) -> Decision:
        scores = torch.tensor([a.score for a in ask.adapters], dtype=torch.float32).nan_to_num(0.0)
        return Decision(ask.everywhere((scores / ask.options["temperature"]).softmax(-1)))
