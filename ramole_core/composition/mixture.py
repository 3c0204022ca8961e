"""Mixture: the plain mean of the LoRAs' outputs.

y = W x + (1/k) sum_j B_j A_j x                    (LoraRetriever, arXiv 2402.09997; RAMoLE eq. 5)

Where an adapter lacks the module the sum is still divided by k.
"""

from collections.abc import Sequence

from jaxtyping import Bool, Float
from torch import Tensor

from ramole_core.composition.contract import Composition, register


@register
class Mixture(Composition):
    name = "mixture"

    def shares(
        self, present: Bool[Tensor, "module k"], scores: Sequence[float]
    ) -> Float[Tensor, "module k"]:
        return present.float() / max(present.shape[-1], 1)
