"""The two tensors of a LoRA at one module, as they lie in the file."""

from dataclasses import dataclass

from ramole_core.pool.header import TensorInfo


@dataclass(frozen=True)
class Pair:
    """A [r, i] and B [o, r], or B [o, e r] of all e experts together."""

    A: TensorInfo
    B: TensorInfo
    said: str = ""
    """What PEFT calls it in patterns; empty: the module's path."""
    expert: int = 0
    experts: int = 1
    """B's columns are every `experts`-th from `expert` on."""

    @property
    def rank(self) -> int:
        return self.A.shape[0]

    @property
    def columns(self) -> slice:
        """The columns of B."""
        return slice(self.expert, None, self.experts)

    @property
    def parameters(self) -> int:
        return self.rank * (self.A.shape[1] + self.B.shape[0])
