"""Linear layers in NF4: 4 bits a weight, a scale for every 64.

On a CPU the codes are made and read by our own kernels, and bitsandbytes is not even imported: it
would quantise in many times the time, and repack its weights at the first forward. On CUDA the
layers are bitsandbytes'. Which layers are packed, and into which numbers, is the same on both.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from transformers import BitsAndBytesConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from ramole_core.errors import RamoleError
from ramole_core.kernels.narrow import as_numbers, narrowed
from ramole_core.kernels.weight import Input, Weight
from ramole_core.kernels.widen import BLOCK

Shapes = Mapping[str, tuple[int, int]]
"""(i, o) of every linear layer by module path, the head left out."""
TILE = 32
"""Outputs that bitsandbytes' own CPU kernel computes together."""


class Nf4Linear(nn.Module):
    """y = x W^T + bias, W [o, i] held as codes and scales, computed by the kernel."""

    scales: Tensor
    """float32 [o, i / BLOCK]."""

    def __init__(self, weight: Tensor, bias: Tensor | None):
        """Of a weight [o, i] in float32 or bfloat16 on the CPU; its own `weight` is the codes,
        uint8 [o, i / 2]."""
        super().__init__()
        codes, scales = narrowed(weight)
        self.out_features, self.in_features = weight.shape
        self.weight = nn.Parameter(codes, requires_grad=False)
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
        return as_numbers(self.weight, self.scales)


def fits_nf4(i: int, o: int) -> bool:
    """Whether a linear layer of i inputs and o outputs is quantised; the same on every device."""
    return i % BLOCK == 0 and o % TILE == 0


def check_shapes(source: str, shapes: Shapes) -> None:
    """Raises RamoleError where no layer would be packed."""
    if not any(fits_nf4(*size) for size in shapes.values()):
        raise RamoleError(
            f"{source} has no linear layer that NF4 can pack ({BLOCK} inputs, {TILE} "
            "outputs or multiples of them); set RAMOLE_QUANTIZATION=none."
        )


def pack_linears(model: PreTrainedModel, shapes: Shapes) -> None:
    """Put an `Nf4Linear` in the place of each layer that fits; the plain ones are given back, and
    with them the file that all weights were mapped from."""
    for path, size in shapes.items():
        layer = model.get_submodule(path)
        if fits_nf4(*size) and isinstance(layer, nn.Linear | Conv1D):
            model.set_submodule(path, Nf4Linear(_rows_of(layer), layer.bias))
    for weight in model.parameters():
        weight.data = weight.data.clone()


def round_linears(model: PreTrainedModel, shapes: Shapes) -> None:
    """Give each layer that fits the numbers that it has after NF4 and back, in its own dtype."""
    for path, size in shapes.items():
        layer = model.get_submodule(path)
        if fits_nf4(*size) and isinstance(layer, nn.Linear | Conv1D):
            rounded = round_to_nf4(_rows_of(layer))
            layer.weight.data = rounded.T.contiguous() if isinstance(layer, Conv1D) else rounded


def round_to_nf4(weight: Tensor) -> Tensor:
    """The weight [o, i], i in whole blocks, after NF4 and back."""
    if weight.device.type == "cpu":
        return as_numbers(*narrowed(weight)).to(weight.dtype)
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    packed, state = quantize_4bit(weight, quant_type="nf4", blocksize=BLOCK)
    return dequantize_4bit(packed, state).to(weight.dtype).reshape(weight.shape)


def config_for_cuda(shapes: Shapes, compute: torch.dtype) -> BitsAndBytesConfig:
    """How transformers loads the same layers by bitsandbytes."""
    odd = [path for path, size in shapes.items() if not fits_nf4(*size)]
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=compute,
        # naming some replaces transformers' own list, which is the head
        llm_int8_skip_modules=[*odd, "lm_head"] if odd else None,
    )


def _rows_of(layer: nn.Linear | Conv1D) -> Tensor:
    """[o, i]; Conv1D keeps [i, o], and is quantised as any linear layer."""
    return layer.weight.data.T.contiguous() if isinstance(layer, Conv1D) else layer.weight.data
