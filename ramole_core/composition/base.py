"""The base model alone: y = W x. The control beside every claim."""

from collections.abc import Sequence

from ramole_core.composition.contract import Composition, Lora, ModuleRouter, Plan, register


@register
class Base(Composition):
    name = "base"

    def experts(self, k: int) -> int:
        return 0

    def plan(
        self,
        loras: Sequence[Lora | None],
        *,
        weights: Sequence[float] | None = None,
        router: ModuleRouter | None = None,
    ) -> Plan | None:
        return None
