"""Selection: the most similar LoRA alone.

y = W x + B_1 A_1 x                                   (LoraRetriever, arXiv 2402.09997, section 3.3)
"""

from collections.abc import Sequence

from jaxtyping import Bool, Float
from torch import Tensor

from ramole_core.composition.contract import Composition, register


@register
class Selection(Composition):
    name = "selection"

    def experts(self, k: int) -> int:
        return min(k, 1)

    def shares(
        self, present: Bool[Tensor, "module k"], scores: Sequence[float]
    ) -> Float[Tensor, "module k"]:
        return present.float()
