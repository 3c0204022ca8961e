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
from dataclasses import dataclass

import torch
from torch import Tensor

from ramole_core.composition import Router
from ramole_core.kernels.compiled import DTYPES
from ramole_core.layers.bank_tensors import BankTensors
from ramole_core.layers.layout import Layout
from ramole_core.layers.units import PageRoom, Units

IDLE_PAGES = 16
"""Pages that adapters without a request may hold where the layers read every page."""
INITIAL_PAGES = 32
"""Pages that are allocated at first; they double when more are needed."""


@dataclass(eq=False)
class Slot:
    """One adapter in the bank."""

    key: Hashable
    number: int
    """Its column among the adapters: the p axis of every mask."""
    pages: list[int]
    present: Tensor
    """Modules that it has, in flat order."""
    experts: frozenset[int] = frozenset()
    """Groups of experts in which it has units."""
    activation: str = ""
    """Between A and B of a bypass; empty for a LoRA."""
    pins: int = 0
    ephemeral: bool = False
    """Used once: it leaves with its last request."""


class Bank:
    """The adapter bank's pages and their owners. Not thread-safe."""

    def __init__(self, layout: Layout, *, device: torch.device, dtype: torch.dtype, limit: int):
        """`limit` in bytes; it bounds the pages, so the adapters of all running requests."""
        self.layout, self.device, self.dtype = layout, device, dtype
        self.by_rows = device.type == "cpu" and dtype in DTYPES
        """Whether compiled kernels walk each token's own pages."""
        self.wide = torch.promote_types(dtype, torch.float32)
        self._room = PageRoom(layout, dtype=dtype, limit=limit)
        self.has_experts = False
        """Whether an adapter here has experts."""
        self.page_bytes = self._room.page_bytes(frozenset())
        self.most = self._room.most(frozenset())
        self.loads = self.evictions = 0
        self.version = 0
        """Incremented with pages, numbers or router rows; tables of an older version are stale."""
        self._slots: dict[Hashable, Slot] = {}  # least recently used first
        self._free = list(range(min(INITIAL_PAGES, self.most)))
        self.tensors = BankTensors(
            layout, device=device, dtype=dtype, asleep=self._room.experts, size=len(self._free)
        )

    # --- what the layers read -----------------------------------------------------------------

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
            present = units.present.clone()  # a view would keep the packed file in memory
            slot = Slot(
                key, self._number(), pages, present, experts, activation, ephemeral=ephemeral
            )
            try:
                self.tensors.write(slot.pages, units)
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
        same = self._room.experts - experts == self.tensors.asleep
        return self.most if same else self._room.most(experts)

    def forget(self) -> None:
        """Drop the adapters that no request uses."""
        for slot in self.slots:
            if not slot.pins:
                self._drop(slot)

    def tidy(self) -> None:
        """Where every page is read: drop unused adapters beyond IDLE_PAGES pages, and close holes
        that cost much."""
        if self.by_rows:
            return
        idle = [slot for slot in self._slots.values() if not slot.pins]
        spare = sum(len(slot.pages) for slot in idle)
        for slot in idle:
            if spare <= IDLE_PAGES:
                break
            spare -= len(slot.pages)
            self._drop(slot)
        held = sum(len(slot.pages) for slot in self._slots.values())
        if self.high > held + max(IDLE_PAGES, held // 4):
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
        self._allocate_experts(experts.union(*(slot.experts for slot in self.slots)))
        return True

    def _has_room(self, slots: Sequence[Slot], rank: int, experts: frozenset[int]) -> bool:
        held = sum(len(slot.pages) for slot in slots)
        return held + rank <= self._most_with(experts.union(*(slot.experts for slot in slots)))

    def _allocate_experts(self, experts: frozenset[int]) -> None:
        """Allocate pages for these groups of experts alone."""
        asleep = self._room.experts - experts
        if asleep == self.tensors.asleep:
            return
        most = self._most_with(experts)
        if most < self.tensors.size:
            self._close_holes()
            self._free = [page for page in self._free if page < most]
        self.tensors.asleep, self.has_experts = asleep, bool(experts)
        self.most, self.page_bytes = most, self._room.page_bytes(experts)
        self.tensors.resize(min(self.tensors.size, most))
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
            self.tensors.move(moves)
            goes = dict(moves)
            slot.pages = [goes.get(page, page) for page in slot.pages]
            self._free = [p for p in self._free if p not in goes.values()] + list(goes)
            self.version += 1

    def _grow(self) -> None:
        tensors = self.tensors
        size = min(self.most, max(INITIAL_PAGES, 2 * tensors.size))
        self._free += range(tensors.size, size)
        tensors.resize(size)
        self.version += 1

    def add_router(self, router: Router) -> None:
        """Add the rows of a router, keyed by its checksum, and update the adapters' gates."""
        if router.checksum not in self.tensors.routers:
            self.tensors.add_router(router, [slot.pages for slot in self.slots])
            self.version += 1
