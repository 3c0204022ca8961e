"""The rank units of the adapters in use, side by side in one tensor for each kind of layer.

A page is one rank unit over all modules, so adapters of any rank fit wherever pages are free
(unified paging, S-LoRA, arXiv 2311.03285, section 4.1). The mixed layers read the first `high`
pages as one matrix: the fewer holes, the less they compute. Adapters are pinned while a request
uses them; one that nobody uses stays while its pages cost little, and leaves in order of last use.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ramole_core.composition import Router
from ramole_core.kernels.compiled import view
from ramole_core.layers.layout import Layout
from ramole_core.layers.units import Units

SLACK = 16
"""Pages that adapters without a request may hold among those that the layers read."""
FIRST = 32
"""Pages that are made at first; they double when more are needed."""


@dataclass(eq=False)
class Slot:
    """One adapter in the bank."""

    key: Hashable
    number: int
    """Its column among the adapters: the p axis of every mask."""
    pages: list[int]
    present: Tensor
    """Which modules it has, in flat order."""
    activation: str = ""
    """Between A and B of a bypass; empty for a LoRA."""
    pins: int = 0
    passing: bool = False
    """Nobody will ask for it again: it leaves with its last request."""


@dataclass
class RouterRows:
    """Where the rows of one router stand among all routers' rows."""

    start: int
    rank: int
    B: list[list[Tensor]] = field(repr=False)
    """By group and module: [L, s, o], float32, divided by sqrt(s)."""


class Bank:
    """The pages, and who holds them. Not thread-safe: it belongs to whoever runs the model."""

    def __init__(self, layout: Layout, *, device: torch.device, dtype: torch.dtype, limit: int):
        """`limit` in bytes; it bounds the pages, so the adapters of all running requests."""
        self.layout, self.device, self.dtype = layout, device, dtype
        self.wide = torch.promote_types(dtype, torch.float32)
        self.page_bytes = layout.unit_numbers * dtype.itemsize
        self.most = max(1, limit // self.page_bytes)
        self.loads = self.evictions = 0
        self.version = 0
        """Counts every change of pages, numbers or router rows: what was built from them is old."""
        self._slots: dict[Hashable, Slot] = {}  # least recently used first
        self._free = list(range(min(FIRST, self.most)))
        self._size = len(self._free)
        self._routers: dict[str, RouterRows] = {}
        self._router_A: list[Tensor] = [
            torch.zeros(len(g.paths), 0, g.m, g.i, dtype=dtype, device=device)
            for g in layout.groups
        ]
        self.A: list[Tensor] = []
        """By group, [L, s + pages, m, i]: the routers' rows first."""
        self.B: list[list[Tensor]] = []
        """By group and module, [L, pages, o]."""
        self.gram: list[Tensor] = []
        """By group, [L, m, pages, s], float32."""
        self._views: dict[tuple[int, int], tuple[np.ndarray, np.ndarray, list[np.ndarray]]] = {}
        self._make(self._size)

    # --- what the layers read -----------------------------------------------------------------

    @property
    def s(self) -> int:
        """Rows of all routers together; in `A` they stand before the pages."""
        return self._router_A[0].shape[1]

    @property
    def high(self) -> int:
        """Pages that the layers read: up to the last one that is held."""
        return 1 + max((page for slot in self.slots for page in slot.pages), default=-1)

    @property
    def width(self) -> int:
        """Numbers in use on the p axis."""
        return 1 + max((slot.number for slot in self._slots.values()), default=-1)

    @property
    def slots(self) -> list[Slot]:
        return list(self._slots.values())

    @property
    def nbytes(self) -> int:
        """Bytes of all pages and gates."""
        every = [*self.A, *self.gram, *(B for one in self.B for B in one)]
        return sum(tensor.nbytes for tensor in every)

    def router_rows(self, checksum: str) -> RouterRows:
        return self._routers[checksum]

    @property
    def routers(self) -> list[str]:
        return list(self._routers)

    def views(self, g: int, block: int) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
        """A, gram and each B of one group in one block, as the memory that a CPU's kernels read."""
        found = self._views.get((g, block))
        if found is None:
            every = [view(B[block]) for B in self.B[g]]
            found = self._views[g, block] = view(self.A[g][block]), view(self.gram[g][block]), every
        return found

    def units_of(self, slot: Slot, g: int, block: int, j: int) -> Tensor:
        """A of one adapter at one module, [r, i], without a copy where its pages lie together;
        r = 0 where it lacks the module."""
        start = self.layout.first(g, block)
        pages = slot.pages if slot.present[start + j] else []
        first, last = (pages[0], pages[-1]) if pages else (0, -1)
        if pages == list(range(first, last + 1)):
            return self.A[g][block][self.s + first : self.s + last + 1, j]
        return self.A[g][block][[self.s + page for page in pages], j]

    def owner(self) -> Tensor:
        """[high, width] one-hot, in the gate's dtype: whose page it is; free pages are zero."""
        owner = torch.zeros(self.high, self.width, dtype=self.wide)
        for slot in self._slots.values():
            owner[slot.pages, slot.number] = 1
        return owner.to(self.device)

    # --- adapters -----------------------------------------------------------------------------

    def acquire(
        self,
        key: Hashable,
        load: Callable[[], Units],
        *,
        activation: str = "",
        passing: bool = False,
    ) -> Slot | None:
        """Pin the adapter, loading it where it is not here; None where pinned ones fill the bank.

        Every `acquire` needs its `release`.
        """
        slot = self._slots.get(key)
        if slot is None:
            units = load()
            if not self._make_room(units.rank):
                return None
            pages = self._take(units.rank)
            slot = Slot(key, self._number(), pages, units.present, activation, passing=passing)
            try:
                self._write(slot.pages, units)
            except BaseException:
                self._free.extend(pages)
                raise
            self.loads += 1
            self.version += 1
        self._slots.pop(key, None)
        self._slots[key] = slot
        slot.pins += 1
        slot.passing &= passing
        return slot

    def release(self, slot: Slot) -> None:
        """One request less needs it."""
        slot.pins -= 1
        if slot.passing and not slot.pins:
            self._drop(slot)

    def fits(self, rank: int) -> bool:
        """Whether adapters of this rank in all could ever be here together."""
        return rank <= self.most

    def tidy(self) -> None:
        """Drop what nobody uses beyond SLACK pages, and close the holes where they cost much."""
        idle = [slot for slot in self._slots.values() if not slot.pins]
        spare = sum(len(slot.pages) for slot in idle)
        for slot in idle:
            if spare <= SLACK:
                break
            spare -= len(slot.pages)
            self._drop(slot)
        held = sum(len(slot.pages) for slot in self._slots.values())
        if self.high > held + max(SLACK, held // 4):
            self._close_holes()

    def _make_room(self, rank: int) -> bool:
        idle = [slot for slot in self._slots.values() if not slot.pins]
        spare = self.most - self._size + len(self._free)
        if spare + sum(len(slot.pages) for slot in idle) < rank:
            return False
        for slot in idle:
            if spare >= rank:
                break
            spare += len(slot.pages)
            self._drop(slot)
        return True

    def _drop(self, slot: Slot) -> None:
        del self._slots[slot.key]
        self._free.extend(slot.pages)
        self.evictions += 1
        self.version += 1

    def _take(self, count: int) -> list[int]:
        while len(self._free) < count:
            self._grow()
        self._free.sort()
        pages, self._free = self._free[:count], self._free[count:]
        return pages

    def _number(self) -> int:
        taken = {slot.number for slot in self._slots.values()}
        return next(number for number in range(len(taken) + 1) if number not in taken)

    def _close_holes(self) -> None:
        """Move the last pages into the first free ones."""
        for slot in sorted(self._slots.values(), key=lambda slot: -max(slot.pages, default=-1)):
            self._free.sort()
            moves = [
                (page, self._free[n])
                for n, page in enumerate(sorted(slot.pages, reverse=True)[: len(self._free)])
                if self._free[n] < page
            ]
            if not moves:
                return
            old, new = (torch.tensor(ends, device=self.device) for ends in zip(*moves, strict=True))
            for g, A in enumerate(self.A):
                A[:, new + self.s] = A[:, old + self.s]
                self.gram[g][:, :, new] = self.gram[g][:, :, old]
                for B in self.B[g]:
                    B[:, new] = B[:, old]
            goes = dict(moves)
            slot.pages = [goes.get(page, page) for page in slot.pages]
            self._free = [p for p in self._free if p not in goes.values()] + list(goes)
            self.version += 1

    # --- tensors ------------------------------------------------------------------------------

    def _make(self, size: int) -> None:
        """Pages for `size` units; those that are there keep their content."""
        old = self.A, self.B, self.gram
        self._views = {}
        self.A, self.B, self.gram = [], [], []
        for g, group in enumerate(self.layout.groups):
            L, rows = len(group.paths), self._router_A[g]
            A = rows.new_zeros(L, self.s + size, group.m, group.i)
            A[:, : self.s] = rows
            self.A.append(A)
            self.B.append([rows.new_zeros(L, size, o) for o in group.o])
            self.gram.append(
                torch.zeros(L, group.m, size, self.s, dtype=self.wide, device=self.device)
            )
        if old[0]:
            self._copy(*old)
        self._size = size

    def _copy(self, A: list[Tensor], B: list[list[Tensor]], gram: list[Tensor]) -> None:
        held = B[0][0].shape[1]
        for g in range(len(A)):
            self.A[g][:, self.s : self.s + held] = A[g][:, A[g].shape[1] - held :]
            for new, old in zip(self.B[g], B[g], strict=True):
                new[:, :held] = old
            same = gram[g].shape[3]  # routers are only ever added behind the others
            self.gram[g][:, :, :held, :same] = gram[g]

    def _grow(self) -> None:
        size = min(self.most, max(FIRST, 2 * self._size))
        self._free += range(self._size, size)
        self._make(size)
        self.version += 1

    def _write(self, pages: list[int], units: Units) -> None:
        at: slice | Tensor = torch.tensor(pages, dtype=torch.long, device=self.device)
        rows: slice | Tensor = at + self.s
        if pages and pages == list(range(pages[0], pages[0] + len(pages))):
            at = slice(pages[0], pages[0] + len(pages))
            rows = slice(at.start + self.s, at.stop + self.s)
        for g, A in enumerate(units.A):
            self.A[g][:, rows] = A.to(self.device)
            for j, B in enumerate(units.B[g]):
                self.B[g][j][:, at] = B.to(self.device)
            for router in self._routers.values():
                self._write_gram(g, router, at)

    def _write_gram(self, g: int, router: RouterRows, at: slice | Tensor) -> None:
        """gram = B_r^T B / sqrt(s), float32: the gate's scores without any output of size o.

        One adapter at a time, laid out alike: how a product is summed may follow its size.
        """
        rows = slice(router.start, router.start + router.rank)
        for j, B in enumerate(self.B[g]):
            mine = B[:, at].to(self.wide).contiguous()
            self.gram[g][:, j, at, rows] = mine @ router.B[g][j].transpose(1, 2)

    def add_router(self, router: Router) -> None:
        """Rows of one more router, known by its checksum; the gates of the adapters that are here
        follow."""
        if router.checksum in self._routers:
            return
        s = router.rank
        rows, every = RouterRows(start=self.s, rank=s, B=[]), []
        for group in self.layout.groups:
            A = torch.zeros(len(group.paths), s, group.m, group.i, dtype=self.dtype)
            B = [torch.zeros(len(group.paths), s, o, dtype=self.wide) for o in group.o]
            for block, paths in enumerate(group.paths):
                for j, path in enumerate(paths):
                    module = router.modules.get(path)
                    if module is not None:
                        n = module.A.shape[0]
                        A[block, :n, j] = module.A
                        B[j][block, :n] = module.B.T * n**-0.5
            rows.B.append([one.to(self.device) for one in B])
            every.append(A.to(self.device))
        pairs = zip(self._router_A, every, strict=True)
        self._router_A = [torch.cat(pair, dim=1) for pair in pairs]
        self._routers[router.checksum] = rows
        self._make(self._size)
        for slot in self._slots.values():
            at = torch.tensor(slot.pages, dtype=torch.long, device=self.device)
            for g in range(len(self.layout.groups)):
                self._write_gram(g, rows, at)
        self.version += 1
