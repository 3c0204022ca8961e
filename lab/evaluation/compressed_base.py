"""Copies of the base as it is after rounding or compression, written for whatever loads a base.

    nf4, int4: as they are served; in bfloat16 faster on a CPU, where every forward of a 4-bit batch
              unpacks the weights again
    b bits:   every 64 inputs of a row share a range, and each weight goes to the nearest of the
              2^b levels that lie evenly between the smallest and the largest (round to nearest)
    pruned p: the p % smallest weights of every linear layer are 0 (magnitude pruning)

The weights are those of a compressed model within rounding of bfloat16; no copy is smaller. Only
the linear layers of the blocks are compressed; embeddings, head and norms stay.
"""

import re
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ramole_core.base.model import dequantised, load_base
from ramole_core.base.shapes import read_shapes
from ramole_core.errors import RamoleError

GROUP = 64
"""Inputs that share a range."""
WAYS = "nf4, int4, 2bit to 8bit, pruned1 to pruned99 (per cent), or none"

Compress = Callable[[Float[Tensor, "o i"]], Float[Tensor, "o i"]]


def write_compressed(folder: Path, target: Path, *, how: str) -> Path:
    """Write the copy of the base in `folder`, compressed as `how` says (`WAYS`), to `target`.

    Raises RamoleError for a way that is not known.
    """
    change = read_way(how)
    with tempfile.TemporaryDirectory() as memory:
        quantization = "none" if change else how
        base = load_base(str(folder), data_dir=Path(memory), quantization=quantization)
        model = dequantised(base)
        if change is not None:
            for path in read_shapes(folder):
                _change(model.get_submodule(path), change)
        model.save_pretrained(target)
        base.tokenizer.save_pretrained(target)
    return target


def _change(layer: nn.Module, change: Compress) -> None:
    weight = layer.get_parameter("weight")
    turned = isinstance(layer, Conv1D)  # keeps [i, o]
    made = change((weight.T if turned else weight).float())
    weight.data = (made.T if turned else made).to(weight.dtype).contiguous()


def read_way(how: str) -> Compress | None:
    """What a way does to one weight matrix, in float32; None where loading the base does it."""
    found = re.fullmatch(r"(?:([2-8])bit|pruned([1-9]\d?)|nf4|int4|none)", how)
    if not found:
        raise RamoleError(f"Compression {how!r} is not known; choose {WAYS}.")
    if found[1]:
        return partial(round_to_levels, bits=int(found[1]))
    if found[2]:
        return partial(prune, share=int(found[2]) / 100)
    return None


def round_to_levels(weight: Float[Tensor, "o i"], *, bits: int) -> Float[Tensor, "o i"]:
    """Each weight at the nearest of 2^bits even levels of its group; the last group of a row may be
    shorter."""
    parts = []
    for group in weight.split(GROUP, dim=1):
        low, high = group.amin(1, keepdim=True), group.amax(1, keepdim=True)
        step = ((high - low) / (2**bits - 1)).clamp(min=torch.finfo(group.dtype).tiny)
        parts.append(low + ((group - low) / step).round() * step)
    return torch.cat(parts, dim=1)


def prune(weight: Float[Tensor, "o i"], *, share: float) -> Float[Tensor, "o i"]:
    """The smallest weights of the matrix are 0; as many as the share says, rounded down."""
    count = int(share * weight.numel())
    smallest = weight.abs().flatten().argsort(stable=True)[:count]
    return weight.flatten().index_fill(0, smallest, 0.0).reshape(weight.shape)
