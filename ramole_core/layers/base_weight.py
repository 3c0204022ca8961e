"""A base layer's weight as the kernels read it: where it lies, in NF4, bfloat16 or float32."""

from jaxtyping import Float
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ramole_core.kernels.compiled import DTYPES
from ramole_core.kernels.weight import Input, Weight
from ramole_core.kernels.widen import BLOCK


def base_weight(layer: nn.Module) -> Weight | None:
    """None for a layer that is none, lies elsewhere than on the CPU, or is stored in another way.

    A trap: bitsandbytes repacks a 4-bit weight at its first forward on a CPU and rounds its scales;
    so a layer is read before, and that forward never runs.
    """
    weight = getattr(layer, "weight", None)
    if not isinstance(weight, Tensor) or weight.device.type != "cpu":
        return None
    kind = type(layer)
    if kind in (nn.Linear, Conv1D) and weight.dtype in DTYPES:
        rows = (weight if kind is nn.Linear else weight.T).detach().contiguous()  # Conv1D: [i, o]
        return Weight(rows, (rows.shape[0], rows.shape[1]), bias=_bias(layer))
    if kind.__name__ == "Linear4bit":
        return _nf4(layer)
    return None


def _nf4(layer: nn.Module) -> Weight | None:
    state = getattr(layer.get_parameter("weight"), "quant_state", None)
    if state is None or state.quant_type != "nf4" or state.blocksize != BLOCK or state.nested:
        return None
    o, i = state.shape
    if getattr(state, "packing_format_for_cpu", False):
        raise ValueError("bitsandbytes has run this layer already, which rounds its scales")
    codes, scales = layer.get_parameter("weight").data, state.absmax
    if i % BLOCK or codes.numel() * 2 != o * i or scales.numel() * BLOCK != o * i:
        return None
    scales = scales.float().reshape(o, -1).contiguous()
    return Weight(codes, (o, i), scales=scales, bias=_bias(layer))


def _bias(layer: nn.Module) -> Tensor | None:
    bias = getattr(layer, "bias", None)
    return bias.detach() if isinstance(bias, Tensor) else None


class KernelLinear(nn.Module):
    """A linear layer by the kernel, such as the vocabulary's."""

    def __init__(self, base: nn.Module, weight: Weight):
        super().__init__()
        self.base, self._weight = base, weight

    @property
    def weight(self) -> Tensor:
        """The base layer's weight: some models look at it."""
        return self.base.get_parameter("weight")

    def forward(self, x: Float[Tensor, "*b i"]) -> Float[Tensor, "*b o"]:
        return self._weight.multiply(Input(x))


def kernel_linears(model: nn.Module) -> dict[str, nn.Module]:
    """Every linear layer of a model that has a kernel, by module path."""
    found = {path: (layer, base_weight(layer)) for path, layer in model.named_modules()}
    return {p: KernelLinear(layer, weight) for p, (layer, weight) in found.items() if weight}
