"""An adapter as the mixed layers take it: its rank units, for all blocks of a group in one tensor.

Unit j of a LoRA is row j of A and column j of B. Modules and blocks where the adapter has a lower
rank, or nothing, hold zeros.
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

    @property
    def rank(self) -> int:
        return self.A[0].shape[1]

    @property
    def nbytes(self) -> int:
        return sum(t.nbytes for t in self.A) + sum(t.nbytes for one in self.B for t in one)


def pack_units(loras: Mapping[str, Lora], layout: Layout, *, dtype: torch.dtype) -> Units:
    """The rank units of one adapter in the compute dtype; r is its largest rank."""
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
    return Units(A=tuple(everyA), B=tuple(everyB), present=present)
