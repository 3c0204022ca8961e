"""Mixture: the plain mean of the LoRAs' outputs.

y = W x + (1/k) sum_j B_j A_j x                    (LoraRetriever, arXiv 2402.09997; RAMoLE eq. 5)

Where an adapter lacks the module the sum is still divided by k: its update is 0 and the base has
its share.

Trained: the retriever.

Cost: k LoRAs a token.

Claimed: Llama-2-7b, 48 tasks, mean of the 56 rows of RAMoLE's table, IID / OOD: 49.8 / 45.6.
"""

from ramole_core.composition.decision import Ask, Decision, even
from ramole_core.composition.method import Composition, register
from ramole_core.methods import Method


@register
class Mixture(Composition):
    row = Method(
        "mixture",
        "LoraRetriever, arXiv 2402.09997",
        "the mean of the adapters' outputs, 1/k each",
    )

    def decide(self, ask: Ask) -> Decision:
        return Decision(even(ask.present))
