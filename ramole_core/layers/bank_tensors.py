"""The tensors of the adapter bank: of each kind of layer the rank units of all pages, and routers.

A router has its rows before all pages, and for each page B_r^T B, by which the gate needs no output
of size o. Groups of experts that are `asleep` have no pages.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ramole_core.composition import Router
from ramole_core.kernels.compiled import view
from ramole_core.layers.layout import Layout
from ramole_core.layers.units import Units


@dataclass
class RouterRows:
    """Position of one router's rows among all routers' rows."""

    start: int
    rank: int
    B: list[list[Tensor]] = field(repr=False)
    """By group and module: [L, s, o], float32, divided by sqrt(s)."""


class BankTensors:
    """The tensors of `size` pages. Not thread-safe."""

    def __init__(
        self,
        layout: Layout,
        *,
        device: torch.device,
        dtype: torch.dtype,
        asleep: frozenset[int],
        size: int,
    ):
        self._layout, self._device, self._dtype = layout, device, dtype
        self._wide = torch.promote_types(dtype, torch.float32)
        self.asleep = asleep
        self.made = 0
        """Incremented whenever the tensors are reallocated."""
        self.routers: dict[str, RouterRows] = {}
        """Routers by checksum."""
        self._router_A: list[Tensor] = [
            _zeros(len(g.paths), 0, g.m, g.i, like=torch.zeros(1, dtype=dtype, device=device))
            for g in layout.groups
        ]
        self.A: list[Tensor] = []
        """By group, [L, s + pages, m, i]: the routers' rows first."""
        self.B: list[list[Tensor]] = []
        """By group and module, [L, pages, o]."""
        self.gram: list[Tensor] = []
        """By group, [L, m, pages, s], float32."""
        self._views: dict[tuple[int, int], tuple[np.ndarray, np.ndarray, list[np.ndarray]]] = {}
        self.resize(size)

    @property
    def s(self) -> int:
        """Rows of all routers together; in `A` they stand before the pages."""
        return self._router_A[0].shape[1]

    @property
    def nbytes(self) -> int:
        every = [*self.A, *self.gram, *(B for one in self.B for B in one)]
        return sum(tensor.nbytes for tensor in every)

    def views(self, g: int, block: int) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
        """A, gram and each B of one group in one block, as the memory that a CPU's kernels read."""
        found = self._views.get((g, block))
        if found is None:
            every = [view(B[block]) for B in self.B[g]]
            found = self._views[g, block] = view(self.A[g][block]), view(self.gram[g][block]), every
        return found

    def units_of(self, pages: Sequence[int], g: int, block: int, j: int) -> Tensor:
        """A of these pages at one module, [r, i], a view where they are contiguous."""
        first, last = (pages[0], pages[-1]) if pages else (0, -1)
        if pages == list(range(first, last + 1)):
            return self.A[g][block][self.s + first : self.s + last + 1, j]
        return self.A[g][block][[self.s + page for page in pages], j]

    def resize(self, size: int) -> None:
        """Resize to so many pages, keeping their content."""
        self.size = size
        self.made += 1
        old = self.A, self.B, self.gram
        self._views = {}
        self.A, self.B, self.gram = [], [], []
        for g, group in enumerate(self._layout.groups):
            L, rows, pages = len(group.paths), self._router_A[g], size
            if g in self.asleep:
                rows, pages = rows[:, :0], 0
            s = rows.shape[1]
            A = rows.new_zeros(L, s + pages, group.m, group.i)
            A[:, :s] = rows
            self.A.append(A)
            self.B.append([rows.new_zeros(L, pages, o) for o in group.o])
            gram = torch.zeros(L, group.m, pages, self.s, dtype=self._wide, device=self._device)
            self.gram.append(gram)
        for g, (A, B, gram) in enumerate(zip(*old, strict=True)):
            held = B[0].shape[1]
            kept = min(held, self.B[g][0].shape[1])  # 0 for a group that slept, or will
            if not kept:
                continue
            self.A[g][:, self.s : self.s + kept] = A[:, A.shape[1] - held :][:, :kept]
            for new, one in zip(self.B[g], B, strict=True):
                new[:, :kept] = one[:, :kept]
            same = gram.shape[3]  # routers are only ever added behind the others
            self.gram[g][:, :, :kept, :same] = gram[:, :, :kept]

    def move(self, moves: Sequence[tuple[int, int]]) -> None:
        """Copy pages, each (from, to)."""
        old, new = (torch.tensor(ends, device=self._device) for ends in zip(*moves, strict=True))
        for g, A in enumerate(self.A):
            if g in self.asleep:
                continue
            A[:, new + self.s] = A[:, old + self.s]
            self.gram[g][:, :, new] = self.gram[g][:, :, old]
            for B in self.B[g]:
                B[:, new] = B[:, old]

    def write(self, pages: list[int], units: Units) -> None:
        """Write an adapter into its pages."""
        at: slice | Tensor = torch.tensor(pages, dtype=torch.long, device=self._device)
        rows: slice | Tensor = at + self.s
        if pages and pages == list(range(pages[0], pages[0] + len(pages))):
            at = slice(pages[0], pages[0] + len(pages))
            rows = slice(at.start + self.s, at.stop + self.s)
        for g, A in enumerate(units.A):
            if g in self.asleep:
                continue
            has = A.shape[1] == units.rank
            self.A[g][:, rows] = A.to(self._device) if has else 0
            for j, B in enumerate(units.B[g]):
                self.B[g][j][:, at] = B.to(self._device) if has else 0
            for router in self.routers.values():
                self._write_gram(g, router, at)

    def _write_gram(self, g: int, router: RouterRows, at: slice | Tensor) -> None:
        """gram = B_r^T B / sqrt(s), float32: the gate's scores without any output of size o.

        One adapter at a time, laid out alike: how a product is summed may follow its size.
        """
        if g in self.asleep:
            return
        rows = slice(router.start, router.start + router.rank)
        for j, B in enumerate(self.B[g]):
            mine = B[:, at].to(self._wide).contiguous()
            self.gram[g][:, j, at, rows] = mine @ router.B[g][j].transpose(1, 2)

    def add_router(self, router: Router, adapters: Iterable[Sequence[int]]) -> None:
        """Add the rows of a router, and write gram for the adapters in these pages."""
        s = router.rank
        rows, every = RouterRows(start=self.s, rank=s, B=[]), []
        for group in self._layout.groups:
            L, one = len(group.paths), torch.zeros(1, dtype=self._dtype)
            A = _zeros(L, s, group.m, group.i, like=one)
            B = [_zeros(L, s, o, like=one.to(self._wide)) for o in group.o]
            if any(path in router.modules for paths in group.paths for path in paths):
                A, B = (
                    A.clone(memory_format=torch.contiguous_format),
                    [one.clone(memory_format=torch.contiguous_format) for one in B],
                )
            for block, paths in enumerate(group.paths):
                for j, path in enumerate(paths):
                    module = router.modules.get(path)
                    if module is not None:
                        n = module.A.shape[0]
                        A[block, :n, j] = module.A
                        B[j][block, :n] = module.B.T * n**-0.5
            rows.B.append([one.to(self._device) for one in B])
            every.append(A.to(self._device))
        self._router_A = [_joined(*pair) for pair in zip(self._router_A, every, strict=True)]
        self.routers[router.checksum] = rows
        self.resize(self.size)
        for pages in adapters:
            at = torch.tensor(pages, dtype=torch.long, device=self._device)
            for g in range(len(self._layout.groups)):
                self._write_gram(g, rows, at)


def _zeros(*shape: int, like: Tensor) -> Tensor:
    """Zeros in the memory of one: a router has no rows for most experts."""
    return like.new_zeros(1).expand(shape)


def _joined(first: Tensor, second: Tensor) -> Tensor:
    """Join along the second axis."""
    L, s, m, i = first.shape
    if not (any(first.stride()) or any(second.stride())):
        return _zeros(L, s + second.shape[1], m, i, like=first)
    return torch.cat([first, second], dim=1)
