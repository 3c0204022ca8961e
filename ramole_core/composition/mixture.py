"""Mixture: the plain mean of the LoRAs' outputs.

y = W x + (1/k) sum_j B_j A_j x                    (LoraRetriever, arXiv 2402.09997; RAMoLE eq. 5)

Where an adapter lacks the module the sum is still divided by k.
"""

from collections.abc import Sequence

from ramole_core.composition.contract import (
    Composition,
    Lora,
    ModuleRouter,
    Plan,
    concatenate,
    register,
)


@register
class Mixture(Composition):
    name = "mixture"

    def plan(
        self,
        loras: Sequence[Lora | None],
        *,
        weights: Sequence[float] | None = None,
        router: ModuleRouter | None = None,
    ) -> Plan | None:
        return concatenate(loras, weights=weights or [1 / len(loras)] * len(loras))
