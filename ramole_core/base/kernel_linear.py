"""A base layer's weight for the kernels, in place: NF4, int4, int8, bfloat16 or float32."""

from jaxtyping import Float
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ramole_core.base.packed import PackedLinear
from ramole_core.base.shapes import LINEAR_CLASSES
from ramole_core.kernels.compiled import DTYPES
from ramole_core.kernels.weight import Input, Weight


def base_weight(layer: nn.Module) -> Weight | None:
    """The weight of a linear layer on the CPU; None for any other layer or form."""
    if isinstance(layer, PackedLinear):
        return layer.kernel()
    weight = getattr(layer, "weight", None)
    if not isinstance(weight, Tensor) or weight.device.type != "cpu":
        return None
    kind = type(layer)
    known = kind in (nn.Linear, Conv1D) or kind.__name__ in LINEAR_CLASSES
    if known and weight.dtype in DTYPES:
        rows = (weight if kind is not Conv1D else weight.T).detach().contiguous()  # Conv1D: [i, o]
        return Weight(rows, (rows.shape[0], rows.shape[1]), bias=_bias(layer))
    return None


def _bias(layer: nn.Module) -> Tensor | None:
    bias = getattr(layer, "bias", None)
    return bias.detach() if isinstance(bias, Tensor) else None


class KernelLinear(nn.Module):
    """A linear layer computed by the kernel, such as the head."""

    def __init__(self, base: nn.Module, weight: Weight):
        super().__init__()
        self.base, self._weight = base, weight

    @property
    def weight(self) -> Tensor:
        """The base layer's weight: some models read it."""
        return self.base.get_parameter("weight")

    def forward(self, x: Float[Tensor, "*b i"]) -> Float[Tensor, "*b o"]:
        return self._weight.multiply(Input(x))


def kernel_linears(model: nn.Module) -> dict[str, nn.Module]:
    """Kernel layers for every linear layer that has a kernel, by module path."""
    found = {path: (layer, base_weight(layer)) for path, layer in model.named_modules()}
    return {p: KernelLinear(layer, weight) for p, (layer, weight) in found.items() if weight}
