"""A linear layer's product with its weight laid out once as the CPU's matrix kernels want it.

PyTorch's own bfloat16 product brings the weight into that layout at every call, which costs as much
as the product itself while few tokens are fed. Results differ by rounding at most; the price is a
second copy of the weights.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

TOKENS = 32
"""Rows that the layout is chosen for; any other number works with it too."""


def fast_product(layer: nn.Module) -> Callable[[Tensor], Tensor] | None:
    """x -> W x + bias of this layer; None where there is nothing to gain."""
    if (
        type(layer) is not nn.Linear
        or layer.weight.dtype != torch.bfloat16
        or layer.weight.device.type != "cpu"
        or not torch.backends.mkldnn.is_available()
    ):
        return None
    try:
        run = torch.ops.mkldnn._linear_pointwise
        weight = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), TOKENS)
        run(layer.weight.new_zeros(1, layer.in_features), weight, layer.bias, "none", [], "")
    except (AttributeError, RuntimeError):  # a build of PyTorch, or a CPU, without them
        return None
    bias = layer.bias
    return lambda x: run(x, weight, bias, "none", [], "")


class PackedLinear(nn.Module):
    """A linear layer outside the mixing, such as the vocabulary's, with its fast product."""

    def __init__(self, base: nn.Module, product: Callable[[Tensor], Tensor]):
        super().__init__()
        self.base, self._product = base, product

    @property
    def weight(self) -> Tensor:
        """The base layer's weight: some models look at it."""
        return self.base.get_parameter("weight")

    def forward(self, x: Tensor) -> Tensor:
        return self._product(x)
