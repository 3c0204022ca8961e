"""Linear layers in NF4: 4 bits a weight, a scale for every 64.

On a CPU the codes are made and read by our own kernels, and bitsandbytes is not even imported: it
would quantise in many times the time, and repack its weights at the first forward. On CUDA the
layers are bitsandbytes'. Which layers are packed, and into which numbers, is the same on both.
"""

import torch
from torch import Tensor
from transformers import BitsAndBytesConfig

from ramole_core.base.packed import PackedLinear, Shapes, fits
from ramole_core.kernels.narrow import as_numbers, narrowed
from ramole_core.kernels.widen import BLOCK


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
