"""An adapter packed for the mixed layers: rank units of all blocks of a group in one tensor.

Unit j of a LoRA is row j of A and column j of B. Every adapter is packed with orthonormal columns
in B (`composition/lora.py`), so that |B A x| is |A x|. Modules and blocks where the adapter has a
lower rank, or nothing, hold zeros. Experts are many: a group of theirs in which an adapter has
nothing has no units.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ramole_core.composition import Lora, LoraSet, orthonormal
from ramole_core.layers.layout import Layout


@dataclass(frozen=True)
class Units:
    """One adapter, of r rank units."""

    A: tuple[Float[Tensor, "_ _ _ _"], ...]
    """By group: [L, r, m, i]; r = 0 where it has no expert."""
    B: tuple[tuple[Float[Tensor, "_ _ _"], ...], ...]
    """By group and module: [L, r, o]; alpha/r is folded in."""
    present: Bool[Tensor, "modules"]
    """Modules that the adapter has, in flat order."""
    usual: Float[Tensor, "modules 2"]
    """Mean and standard deviation of log |B A x| over reference inputs, float32; (0, 1) where
    not measured."""

    @property
    def rank(self) -> int:
        return self.A[0].shape[1]

    @property
    def nbytes(self) -> int:
        return sum(t.nbytes for t in self.A) + sum(t.nbytes for one in self.B for t in one)


def pack_units(
    loras: LoraSet, layout: Layout, *, dtype: torch.dtype, bypass: bool = False
) -> Units:
    """The rank units of one adapter in the compute dtype; r is its largest rank.

    A bypass has an activation between A and B, so these stay as they are.
    """
    if not bypass:
        loras = {path: orthonormal(lora) for path, lora in loras.items()}
    most = max((lora.A.shape[0] for lora in loras.values()), default=0)
    everyA, everyB = [], []
    for group in layout.groups:
        has = not group.of_experts or any(p in loras for block in group.paths for p in block)
        r = most if has else 0
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


class UnpackedLoras(Mapping[str, Lora]):
    """The LoRAs of these units by module path, as views made on demand."""

    def __init__(self, units: Units, layout: Layout):
        self._units, self._layout = units, layout

    def __getitem__(self, path: str) -> Lora:
        n = self._layout.sites.at[path]
        if not self._units.present[n]:
            raise KeyError(path)
        g, block, j = self._layout.address(n)
        return Lora(A=self._units.A[g][block, :, j], B=self._units.B[g][j][block].T)

    def __iter__(self) -> Iterator[str]:
        return (path for n, path in enumerate(self._layout.flat) if self._units.present[n])

    def __len__(self) -> int:
        return int(self._units.present.sum())


class PageRoom:
    """The page budget of one bank; `limit` in bytes."""

    def __init__(self, layout: Layout, *, dtype: torch.dtype, limit: int):
        self._layout, self._itemsize, self._limit = layout, dtype.itemsize, limit
        groups = enumerate(layout.groups)
        self.experts = frozenset(g for g, group in groups if group.of_experts)
        """All groups of experts."""

    def experts_of(self, adapters: Sequence[Units]) -> frozenset[int]:
        """Groups in which one of these has experts."""
        return frozenset(g for g in self.experts if any(one.A[g].shape[1] for one in adapters))

    def page_bytes(self, experts: frozenset[int]) -> int:
        """Bytes of a page where these groups of experts have some."""
        asleep = self.experts - experts
        groups = enumerate(self._layout.groups)
        numbers = sum(group.unit_numbers for g, group in groups if g not in asleep)
        return max(1, numbers * self._itemsize)

    def most(self, experts: frozenset[int]) -> int:
        """Pages, at least one."""
        return max(1, self._limit // self.page_bytes(experts))
