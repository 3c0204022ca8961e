"""The rank units of the adapters in use, side by side in one tensor for each kind of layer.

A page is one rank unit over all modules, so adapters of any rank fit wherever pages are free
(unified paging, S-LoRA, arXiv 2311.03285, section 4.1). Adapters are pinned while a request uses
them; an unused one stays while its pages cost nothing, and leaves in order of last use.
Compiled kernels walk each token's own pages: pages of others cost nothing until a request needs
them. Elsewhere the mixed layers read the first `high` pages as one matrix: the fewer pages and
holes, the less they compute.
A group of experts has pages only while some adapter has an expert there: they are most of a page.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ramole_core.composition import Router
from ramole_core.kernels.compiled import DTYPES, view
from ramole_core.layers.layout import Layout
from ramole_core.layers.units import PageRoom, Units

SLACK = 16
"""Pages that adapters without a request may hold where the layers read every page."""
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
    experts: frozenset[int] = frozenset()
    """Groups of experts in which it has some."""
    activation: str = ""
    """Between A and B of a bypass; empty for a LoRA."""
    pins: int = 0
    ephemeral: bool = False
    """It is used once: it leaves with its last request."""


@dataclass
class RouterRows:
    """Where the rows of one router stand among all routers' rows."""

    start: int
    rank: int
    B: list[list[Tensor]] = field(repr=False)
    """By group and module: [L, s, o], float32, divided by sqrt(s)."""


class Bank:
    """The adapter bank's pages and their owners. Not thread-safe."""

    def __init__(self, layout: Layout, *, device: torch.device, dtype: torch.dtype, limit: int):
        """`limit` in bytes; it bounds the pages, so the adapters of all running requests."""
        self.layout, self.device, self.dtype = layout, device, dtype
        self.by_rows = device.type == "cpu" and dtype in DTYPES
        """Whether compiled kernels walk each token's own pages."""
        self.wide = torch.promote_types(dtype, torch.float32)
        self._room = PageRoom(layout, dtype=dtype, limit=limit)
        self.asleep = self._room.experts
        """Groups without pages, which no adapter here changes."""
        self.has_experts = False
        """Whether an adapter here has some."""
        self.page_bytes = self._room.page_bytes(frozenset())
        self.most = self._room.most(frozenset())
        self.loads = self.evictions = 0
        self.version = 0
        """Counts every change of pages, numbers or router rows: what was built from them is old."""
        self.made = 0
        """Counts how often the tensors were made anew."""
        self._slots: dict[Hashable, Slot] = {}  # least recently used first
        self._free = list(range(min(FIRST, self.most)))
        self._size = len(self._free)
        self._routers: dict[str, RouterRows] = {}
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
        """A of one adapter at one module, [r, i], a view where its pages are contiguous; r = 0
        where it lacks the module."""
        start = self.layout.first(g, block)
        pages = slot.pages if slot.present[start + j] else []
        first, last = (pages[0], pages[-1]) if pages else (0, -1)
        if pages == list(range(first, last + 1)):
            return self.A[g][block][self.s + first : self.s + last + 1, j]
        return self.A[g][block][[self.s + page for page in pages], j]

    def owner(self) -> Tensor:
        """[high, width] one-hot, in the gate's dtype: each page's owner; free pages are zero."""
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
        ephemeral: bool = False,
    ) -> Slot | None:
        """Pin the adapter, loading it if needed; None where pinned ones fill the bank.

        Every `acquire` needs its `release`.
        """
        slot = self._slots.get(key)
        if slot is None:
            units = load()
            experts = self._room.experts_of([units])
            if not self._make_room(units.rank, experts):
                return None
            pages = self._take(units.rank)
            slot = Slot(
                key, self._number(), pages, units.present, experts, activation, ephemeral=ephemeral
            )
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
        slot.ephemeral &= ephemeral
        return slot

    def release(self, slot: Slot) -> None:
        """Unpin an adapter once."""
        slot.pins -= 1
        if slot.ephemeral and not slot.pins:
            self._drop(slot)

    def room_for(self, adapters: Sequence[Units]) -> int:
        """The most rank units that could ever fit together with these."""
        return self._most_with(self._room.experts_of(adapters))

    def _most_with(self, experts: frozenset[int]) -> int:
        """The most pages where these groups of experts have some."""
        same = self._room.experts - experts == self.asleep
        return self.most if same else self._room.most(experts)

    def tidy(self) -> None:
        """Where every page is read: drop unused adapters beyond SLACK pages, and close holes that
        cost much."""
        if self.by_rows:
            return
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

    def _make_room(self, rank: int, experts: frozenset[int]) -> bool:
        """Evict idle adapters until this rank fits, and give its experts pages. By rows idle ones
        leave before pages are made for it."""
        idle = [slot for slot in self._slots.values() if not slot.pins]
        pinned = [slot for slot in self._slots.values() if slot.pins]
        if not self._has_room(pinned, rank, experts):
            return False
        while not self._has_room(self.slots, rank, experts) or (
            self.by_rows and idle and len(self._free) < rank
        ):
            self._drop(idle.pop(0))
        self._wake(experts.union(*(slot.experts for slot in self.slots)))
        return True

    def _has_room(self, slots: Sequence[Slot], rank: int, experts: frozenset[int]) -> bool:
        held = sum(len(slot.pages) for slot in slots)
        return held + rank <= self._most_with(experts.union(*(slot.experts for slot in slots)))

    def _wake(self, experts: frozenset[int]) -> None:
        """Allocate pages for these groups of experts alone."""
        asleep = self._room.experts - experts
        if asleep == self.asleep:
            return
        most = self._most_with(experts)
        if most < self._size:
            self._close_holes()
            self._free = [page for page in self._free if page < most]
        self.asleep, self.has_experts = asleep, bool(experts)
        self.most, self.page_bytes = most, self._room.page_bytes(experts)
        self._make(min(self._size, most))
        self.version += 1

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
                if g in self.asleep:
                    continue
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
        """Resize to pages for `size` units, keeping their content."""
        self.made += 1
        old = self.A, self.B, self.gram
        self._views = {}
        self.A, self.B, self.gram = [], [], []
        for g, group in enumerate(self.layout.groups):
            L, rows, pages = len(group.paths), self._router_A[g], size
            if g in self.asleep:
                rows, pages = rows[:, :0], 0
            s = rows.shape[1]
            A = rows.new_zeros(L, s + pages, group.m, group.i)
            A[:, :s] = rows
            self.A.append(A)
            self.B.append([rows.new_zeros(L, pages, o) for o in group.o])
            self.gram.append(
                torch.zeros(L, group.m, pages, self.s, dtype=self.wide, device=self.device)
            )
        if old[0]:
            self._copy(*old)
        self._size = size

    def _copy(self, A: list[Tensor], B: list[list[Tensor]], gram: list[Tensor]) -> None:
        for g in range(len(A)):
            held = B[g][0].shape[1]
            kept = min(held, self.B[g][0].shape[1])  # 0 for a group that slept, or will
            if not kept:
                continue
            self.A[g][:, self.s : self.s + kept] = A[g][:, A[g].shape[1] - held :][:, :kept]
            for new, old in zip(self.B[g], B[g], strict=True):
                new[:, :kept] = old[:, :kept]
            same = gram[g].shape[3]  # routers are only ever added behind the others
            self.gram[g][:, :, :kept, :same] = gram[g][:, :, :kept]

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
            if g in self.asleep:
                continue
            has = A.shape[1] == units.rank
            self.A[g][:, rows] = A.to(self.device) if has else 0
            for j, B in enumerate(units.B[g]):
                self.B[g][j][:, at] = B.to(self.device) if has else 0
            for router in self._routers.values():
                self._write_gram(g, router, at)

    def _write_gram(self, g: int, router: RouterRows, at: slice | Tensor) -> None:
        """gram = B_r^T B / sqrt(s), float32: the gate's scores without any output of size o.

        One adapter at a time, laid out alike: how a product is summed may follow its size.
        """
        if g in self.asleep:
            return
        rows = slice(router.start, router.start + router.rank)
        for j, B in enumerate(self.B[g]):
            mine = B[:, at].to(self.wide).contiguous()
            self.gram[g][:, j, at, rows] = mine @ router.B[g][j].transpose(1, 2)

    def add_router(self, router: Router) -> None:
        """Add the rows of a router, keyed by its checksum, and update the adapters' gates."""
        if router.checksum in self._routers:
            return
        s = router.rank
        rows, every = RouterRows(start=self.s, rank=s, B=[]), []
        for group in self.layout.groups:
            L, one = len(group.paths), torch.zeros(1, dtype=self.dtype)
            A = _zeros(L, s, group.m, group.i, like=one)
            B = [_zeros(L, s, o, like=one.to(self.wide)) for o in group.o]
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
            rows.B.append([one.to(self.device) for one in B])
            every.append(A.to(self.device))
        self._router_A = [_joined(*pair) for pair in zip(self._router_A, every, strict=True)]
        self._routers[router.checksum] = rows
        self._make(self._size)
        for slot in self._slots.values():
            at = torch.tensor(slot.pages, dtype=torch.long, device=self.device)
            for g in range(len(self.layout.groups)):
                self._write_gram(g, rows, at)
        self.version += 1


def _zeros(*shape: int, like: Tensor) -> Tensor:
    """Zeros in the memory of one: a router has no rows for most experts."""
    return like.new_zeros(1).expand(shape)


def _joined(first: Tensor, second: Tensor) -> Tensor:
    """Join along the second axis."""
    L, s, m, i = first.shape
    if not (any(first.stride()) or any(second.stride())):
        return _zeros(L, s + second.shape[1], m, i, like=first)
    return torch.cat([first, second], dim=1)
