"""Selection: the most similar LoRA alone.

y = W x + B_1 A_1 x                                   (LoraRetriever, arXiv 2402.09997, section 3.3)
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
class Selection(Composition):
    name = "selection"

    def experts(self, k: int) -> int:
        return min(k, 1)

    def plan(
        self,
        loras: Sequence[Lora | None],
        *,
        weights: Sequence[float] | None = None,
        router: ModuleRouter | None = None,
    ) -> Plan | None:
        return concatenate(loras[:1], weights=weights or [1.0])
