"""Selection: the most similar LoRA alone.

y = W x + B_1 A_1 x                                   (LoraRetriever, arXiv 2402.09997, section 3.3)

Trained: the retriever.

Cost: one LoRA a token.

Claimed: Llama-2-7b, 48 tasks, mean of the 56 rows of RAMoLE's table, IID / OOD: 51.2 / 43.0,
perfect selection 55.4.

Found: 12 tasks, 40 dev rows each, IID / OOD: 56.4 / 32.9, perfect selection 56.4. Over tasks +13.6
[+6.1, +23.4] on mixture IID, where the claim has 1.4, and -0.9 [-7.9, +6.3] OOD, where it has -2.6:
agrees in sign. Our tasks are plainer to tell apart, so the right adapter is found and is enough.
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
