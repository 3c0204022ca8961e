"""The base model alone: y = W x. The control beside every claim."""

from collections.abc import Sequence

from jaxtyping import Bool, Float
from torch import Tensor

from ramole_core.composition.contract import Composition, register


@register
class Base(Composition):
    name = "base"

    def experts(self, k: int) -> int:
        return 0

    def shares(
        self, present: Bool[Tensor, "module k"], scores: Sequence[float]
    ) -> Float[Tensor, "module k"]:
        return present.float()
