"""Linear layers in few bits, and the choice of layers to pack.

Which layers are packed is the same for every kind and on every device.
"""

from collections.abc import Callable, Mapping
from typing import ClassVar

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from ramole_core.errors import RamoleError
from ramole_core.kernels.weight import Input, Weight
from ramole_core.kernels.widen import BLOCK

Shapes = Mapping[str, tuple[int, int]]
"""(i, o) of every linear layer by module path, the head left out."""
LOGITS = "router_logits"
"""Name of a router's layer (`routers.py`): a choice hangs on its numbers."""
TILE = 32
"""Outputs that bitsandbytes' own CPU kernel computes together."""


class PackedLinear(nn.Module):
    """y = x W^T + bias, W [o, i] held as small numbers with their scales, computed by the kernel
    on a CPU."""

    narrowed: ClassVar[Callable[[Tensor], tuple[Tensor, Tensor]]]
    """Small numbers and scales of a weight [o, i]."""
    as_numbers: ClassVar[Callable[[Tensor, Tensor], Tensor]]
    """And back, in float32."""
    scales: Tensor

    def __init__(self, weight: Tensor, bias: Tensor | None):
        """Of a weight [o, i] in float32 or bfloat16 on the CPU; its own `weight` is the small
        numbers."""
        super().__init__()
        numbers, scales = type(self).narrowed(weight.detach())
        self.out_features, self.in_features = weight.shape
        self.weight = nn.Parameter(numbers, requires_grad=False)
        self.register_buffer("scales", scales)
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.kernel().multiply(Input(x))

    def kernel(self) -> Weight:
        """The weight where it lies."""
        size = self.out_features, self.in_features
        return Weight(self.weight, size, scales=self.scales, bias=self.bias)

    def numbers(self) -> Tensor:
        """W in float32."""
        return type(self).as_numbers(self.weight, self.scales)


def fits(i: int, o: int) -> bool:
    """Whether a linear layer of i inputs and o outputs can be packed in 4 bits."""
    return i % BLOCK == 0 and o % TILE == 0


def check_shapes(source: str, shapes: Shapes) -> None:
    """Raise RamoleError where no layer would be packed."""
    if not any(takes(path, size) for path, size in shapes.items()):
        raise RamoleError(
            f"{source} has no linear layer that 4 bits can hold ({BLOCK} inputs, {TILE} "
            "outputs or multiples of them); set RAMOLE_QUANTIZATION=none."
        )


def takes(path: str, size: tuple[int, int]) -> bool:
    """Whether the layer at this path is packed."""
    return fits(*size) and path.rpartition(".")[2] != LOGITS


def pack_linears(model: PreTrainedModel, shapes: Shapes, kind: type[PackedLinear]) -> None:
    """Replace each layer that fits by a packed one; the plain weights are freed, and with them
    their mapped file."""
    for path, size in shapes.items():
        layer = model.get_submodule(path)
        if takes(path, size) and isinstance(layer, nn.Linear | Conv1D):
            model.set_submodule(path, kind(_rows_of(layer), layer.bias))
    for weight in model.parameters():
        weight.data = weight.data.clone()


def round_linears(
    model: PreTrainedModel, shapes: Shapes, rounding: Callable[[Tensor], Tensor]
) -> None:
    """Round the weights [o, i] of each layer that fits, in their own dtype."""
    for path, size in shapes.items():
        layer = model.get_submodule(path)
        if takes(path, size) and isinstance(layer, nn.Linear | Conv1D):
            rounded = rounding(_rows_of(layer))
            layer.weight.data = rounded.T.contiguous() if isinstance(layer, Conv1D) else rounded


def _rows_of(layer: nn.Linear | Conv1D) -> Tensor:
    """[o, i]; Conv1D keeps [i, o], and is quantised as any linear layer."""
    return layer.weight.data.T.contiguous() if isinstance(layer, Conv1D) else layer.weight.data
