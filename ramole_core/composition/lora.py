"""One adapter at one linear layer, and the same LoRA with orthonormal columns in B.

A LoRA stays the same when B = Q R is written as Q (R A). With orthonormal columns the size of its
response, |B A x|, is that of its units alone, |A x|, which a gate can read for nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ramole_core.shapes import LoraA, LoraB


@dataclass(frozen=True)
class Lora:
    """A and B at one linear layer; the scale alpha/r is folded into B."""

    A: LoraA
    B: LoraB


LoraSet = Mapping[str, Lora]
"""One adapter: module path -> its A and B."""


def orthonormal(lora: Lora) -> Lora:
    """The same LoRA with orthonormal columns in B; of at most its rank, in float32 or wider.

    It is computed in float64: how many threads the libraries below take changes their last bits,
    and none that is left after rounding.
    """
    Q, R = torch.linalg.qr(lora.B.double())
    dtype = torch.promote_types(lora.B.dtype, torch.float32)
    return Lora(A=(R @ lora.A.double()).to(dtype), B=Q.to(dtype))


def wide(tensor: Tensor) -> Tensor:
    """A tensor in float32 or wider."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def widened(lora: Lora) -> Lora:
    """A LoRA in float32 or wider."""
    return Lora(A=wide(lora.A), B=wide(lora.B))


def uniform(r: int, i: int) -> LoraA:
    """An A of training's start, as PEFT draws it, from torch's own generator."""
    return (torch.rand(r, i) * 2 - 1) * i**-0.5
