"""An adapter as the mixed layers take it: its rank units, for all blocks of a group in one tensor.

Unit j of a LoRA is row j of A and column j of B. A LoRA stays the same when B = Q R is written as
Q (R A), so every adapter is packed with orthonormal columns in B: then the size of its response,
|B A x|, is that of its units alone, which a gate can read for nothing. Modules and blocks where the
adapter has a lower rank, or nothing, hold zeros.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ramole_core.composition import Lora
from ramole_core.layers.layout import Layout

LoraSet = dict[str, Lora]
"""One adapter: module path -> its A and B."""


@dataclass(frozen=True)
class Units:
    """One adapter, of r rank units."""

    A: tuple[Float[Tensor, "_ r _ _"], ...]
    """By group: [L, r, m, i]."""
    B: tuple[tuple[Float[Tensor, "_ r _"], ...], ...]
    """By group and module: [L, r, o]; alpha/r is folded in."""
    present: Bool[Tensor, "modules"]
    """Which modules the adapter has, in flat order."""
    usual: Float[Tensor, "modules 2"]
    """Mean and standard deviation of log |B A x| over reference inputs, float32; (0, 1) where
    nobody measured."""

    @property
    def rank(self) -> int:
        return self.A[0].shape[1]

    @property
    def nbytes(self) -> int:
        return sum(t.nbytes for t in self.A) + sum(t.nbytes for one in self.B for t in one)


def pack_units(loras: Mapping[str, Lora], layout: Layout, *, dtype: torch.dtype) -> Units:
    """The rank units of one adapter in the compute dtype; r is its largest rank."""
    loras = {path: orthonormal(lora) for path, lora in loras.items()}
    r = max((lora.A.shape[0] for lora in loras.values()), default=0)
    everyA, everyB = [], []
    for group in layout.groups:
        A = torch.zeros(len(group.paths), r, group.m, group.i, dtype=dtype)
        B = tuple(torch.zeros(len(group.paths), r, o, dtype=dtype) for o in group.o)
        for block, paths in enumerate(group.paths):
            for module, path in enumerate(paths):
                lora = loras.get(path)
                if lora is not None:
                    A[block, : lora.A.shape[0], module] = lora.A
                    B[module][block, : lora.A.shape[0]] = lora.B.T
        everyA.append(A)
        everyB.append(B)
    present = torch.tensor([path in loras for path in layout.flat])
    usual = torch.tensor([[0.0, 1.0]]).repeat(len(layout.flat), 1)
    return Units(A=tuple(everyA), B=tuple(everyB), present=present, usual=usual)


def orthonormal(lora: Lora) -> Lora:
    """The same LoRA with orthonormal columns in B; of at most its rank, in float32 or wider."""
    wide = torch.promote_types(lora.B.dtype, torch.float32)
    Q, R = torch.linalg.qr(lora.B.to(wide))
    return Lora(A=R @ lora.A.to(wide), B=Q)
