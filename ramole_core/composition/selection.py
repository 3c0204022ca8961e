"""Selection: the most similar LoRA alone.

y = W x + B_1 A_1 x                                   (LoraRetriever, arXiv 2402.09997, section 3.3)

Trained: the retriever.

Cost: one LoRA a token.

Claimed: Llama-2-7b, 48 tasks, mean of the 56 rows of RAMoLE's table, IID / OOD: 51.2 / 43.0,
perfect selection 55.4.
"""

from ramole_core.composition.decision import Ask, Decision, even
from ramole_core.composition.method import Composition, register
from ramole_core.methods import Method


@register
class Selection(Composition):
    row = Method("selection", "LoraRetriever, arXiv 2402.09997", "the most similar adapter alone")

    def experts(self, k: int) -> int:
        return min(k, 1)

    def decide(self, ask: Ask) -> Decision:
        return Decision(even(ask.present))
