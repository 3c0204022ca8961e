"""Linear layers in few bits (NF4, int4, int8), and the choice of layers to pack.

Which layers are packed, and into which numbers, is the same on every device. On a CPU our own
kernels make and read the codes, and bitsandbytes is not even imported: it would quantise in many
times the time, and repack its weights at the first forward. On CUDA, NF4 layers are bitsandbytes'.
"""

from collections.abc import Callable, Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from transformers import BitsAndBytesConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from ramole_core.errors import RamoleError
from ramole_core.kernels.narrow import (
    as_numbers,
    from_bytes,
    narrowed,
    narrowed_to_grid,
    on_grid,
    rounded_to_bytes,
)
from ramole_core.kernels.weight import Input, Weight
from ramole_core.kernels.widen import BLOCK

Shapes = Mapping[str, tuple[int, int]]
"""(i, o) of every linear layer by module path, the head left out."""
LOGITS = "router_logits"
"""Name of a router's layer (`routers.py`): the choice of experts depends on it."""
TILE = 32
"""Outputs that bitsandbytes' own CPU kernel computes together."""


class PackedLinear(nn.Module):
    """y = x W^T + bias, W [o, i] held as small numbers with their scales, computed by the kernel
    on a CPU."""

    narrowed: ClassVar[Callable[[Tensor], tuple[Tensor, Tensor]]]
    """Small numbers and scales of a weight [o, i]."""
    as_numbers: ClassVar[Callable[[Tensor, Tensor], Tensor]]
    """The inverse, in float32."""
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


class Int8Linear(PackedLinear):
    """A linear layer of int8 numbers [o, i] and float32 scales [o]."""

    narrowed = staticmethod(rounded_to_bytes)
    as_numbers = staticmethod(from_bytes)


def round_head(source: str, model: PreTrainedModel) -> None:
    """Replace the model's head by one in int8; raises RamoleError where it has no plain one on the
    CPU."""
    head = model.get_output_embeddings()
    if type(head) is not nn.Linear or head.weight.device.type != "cpu":
        raise RamoleError(
            f"{source} has no plain output head on the CPU that int8 could hold; set "
            "RAMOLE_HEAD=full."
        )
    model.set_output_embeddings(Int8Linear(head.weight, head.bias))


class Int4Linear(PackedLinear):
    """A linear layer of codes uint8 [o, i / 2], steps and least numbers bfloat16 [o, i / 32, 2]."""

    narrowed = staticmethod(narrowed_to_grid)
    as_numbers = staticmethod(on_grid)


def round_to_int4(weight: Tensor) -> Tensor:
    """The weight [o, i] on the CPU, i in whole blocks, after int4 and back."""
    return on_grid(*narrowed_to_grid(weight)).to(weight.dtype)


class Nf4Linear(PackedLinear):
    """A linear layer of codes uint8 [o, i / 2] and scales float32 [o, i / BLOCK]."""

    narrowed = staticmethod(narrowed)
    as_numbers = staticmethod(as_numbers)


def round_to_nf4(weight: Tensor) -> Tensor:
    """The weight [o, i], i in whole blocks, after NF4 and back."""
    if weight.device.type == "cpu":
        return as_numbers(*narrowed(weight)).to(weight.dtype)
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    packed, state = quantize_4bit(weight, quant_type="nf4", blocksize=BLOCK)
    return dequantize_4bit(packed, state).to(weight.dtype).reshape(weight.shape)


def config_for_cuda(shapes: Shapes, compute: torch.dtype) -> BitsAndBytesConfig:
    """The transformers config that loads the same layers by bitsandbytes."""
    odd = [path for path, size in shapes.items() if not fits(*size)]
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=compute,
        # naming some replaces transformers' own list, which is the head
        llm_int8_skip_modules=[*odd, "lm_head"] if odd else None,
    )
