"""Who uses which adapters in the batch that runs now, as the masks that the mixed layers read.

Built once per change of membership, not per step; nothing here grows with the tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ramole_core.layers.bank import Bank, Slot

NEVER = -1e30
"""Added to the score of an adapter that is not the request's; finite, so that no row is nan."""


@dataclass(frozen=True)
class Line:
    """What one request asks of the mixed layers."""

    slots: tuple[Slot, ...]
    """Its adapters in the bank; a merge is one."""
    weights: Float[Tensor, "module slot"]
    """Of each slot in each module, float32, in the layout's flat order; not read where gated."""
    gate: str | None
    """The router that gives the weights token by token; None: `weights` hold. A name that the bank
    has no router of: a gate of `offset` and `power` alone."""
    shown: Float[Tensor, "module k"] | None = None
    """What the trace shows where `weights` are those of a merge: the weights inside it."""
    offset: Float[Tensor, "module slot"] | None = None
    """Added to the gate's scores, float32; None: nothing. With it, an adapter keeps its share in
    modules that it lacks, and the base has it."""
    gains: tuple[float, float] = (0.0, 0.0)
    """The gate's scores also get these times an adapter's surprise: in this module, and on the mean
    of all modules in the layers below."""

    @property
    def k(self) -> int:
        """Experts in the trace."""
        return self.weights.shape[1] if self.shown is None else self.shown.shape[1]


@dataclass(frozen=True)
class Rows:
    """Each token's own pages, as `rows_kernel` takes them."""

    pages: np.ndarray
    """[b, R] int32."""
    slots: np.ndarray
    """[b, R] int32: the place of each page's adapter among the row's own."""
    counts: np.ndarray
    """[b, 2] int32: pages and adapters."""
    asks: np.ndarray
    """[b, 3] int32: first row and rank of the router; then 0 where `fixed` holds, 1 where a gate
    decides, 2 where its adapters keep their share in modules that they lack."""
    present: np.ndarray
    """[modules, b, k] bool."""
    fixed: np.ndarray
    """[modules, b, k] float32; added to the scores where a gate decides."""
    usual: np.ndarray
    """[modules, b, k, 2] float32: mean of log |v|, and one over its spread."""
    gains: np.ndarray
    """[b, 2] float32."""

    def repeat(self, l: int) -> "Rows":
        """The same for `l` tokens of each row."""
        by_row = {
            name: getattr(self, name) for name in ("pages", "slots", "counts", "asks", "gains")
        }
        by_module = {name: getattr(self, name) for name in ("present", "fixed", "usual")}
        return Rows(
            **{name: table.repeat(l, 0) for name, table in by_row.items()},
            **{name: table.repeat(l, 1) for name, table in by_module.items()},
        )


class Lines:
    """The requests of one batch, in the order of its rows; valid while `version` is the bank's."""

    def __init__(self, bank: Bank, lines: Sequence[Line]):
        self.bank, self.lines = bank, tuple(lines)
        self.version = bank.version
        self.b = len(lines)
        self.s, self.high, self.width = bank.s, bank.high, bank.width
        self.gated = any(line.gate is not None and line.slots for line in lines)
        self.mixes = any(line.slots for line in lines)
        self._rows: dict[int, Rows] = {}

    @cached_property
    def owner(self) -> Float[Tensor, "R p"]:
        return self.bank.owner()

    @cached_property
    def numbers(self) -> Tensor:
        """[b, k] columns of each row's adapters; padded with 0."""
        k = max((len(line.slots) for line in self.lines), default=0)
        rows = [[s.number for s in line.slots] + [0] * (k - len(line.slots)) for line in self.lines]
        return torch.tensor(rows, dtype=torch.long).reshape(self.b, k)

    @cached_property
    def _mine(self) -> Bool[Tensor, "b p"]:
        mine = torch.zeros(self.b, self.width, dtype=torch.bool)
        for row, line in enumerate(self.lines):
            mine[row, [slot.number for slot in line.slots]] = True
        return mine

    @cached_property
    def _here(self) -> Bool[Tensor, "modules p"]:
        here = torch.zeros(len(self.bank.layout.flat), self.width, dtype=torch.bool)
        for slot in self.bank.slots:
            here[:, slot.number] = slot.present
        return here

    @cached_property
    def plain(self) -> bool:
        """Every row is gated, by its router alone, and has its adapters in every module: one mask
        does for all layers."""
        every = all(
            line.gate is not None and line.slots and line.offset is None for line in self.lines
        )
        return every and all(bool(slot.present.all()) for line in self.lines for slot in line.slots)

    @cached_property
    def _open(self) -> Bool[Tensor, "modules b p"]:
        """Where a gate may give weight."""
        gated = torch.tensor([line.gate is not None for line in self.lines])
        return (self._mine & gated[:, None])[None] & self._here[:, None]

    @cached_property
    def mask(self) -> Float[Tensor, "modules b p"]:
        """Added to the scores: the request's offset, or NEVER; [1, b, p] where `plain`."""
        allowed = self._mine[None] if self.plain else self._open
        mask = torch.zeros(allowed.shape, dtype=self.bank.wide)
        mask.masked_fill_(~allowed, NEVER)
        for row, line in enumerate(self.lines):
            if line.gate is not None and line.offset is not None:  # also where it lacks the module
                mask[:, row, [slot.number for slot in line.slots]] = line.offset.to(mask.dtype)
        return mask.to(self.bank.device)

    @cached_property
    def surprised(self) -> bool:
        """Some row's gate asks how surprising the adapters' responses are."""
        return any(line.gate is not None and any(line.gains) for line in self.lines)

    @cached_property
    def gains(self) -> Float[Tensor, "b 2"]:
        rows = [line.gains if line.gate is not None else (0.0, 0.0) for line in self.lines]
        return torch.tensor(rows, dtype=self.bank.wide, device=self.bank.device)

    @cached_property
    def usual(self) -> Float[Tensor, "modules 2 p"]:
        """Mean of log |v| of each adapter, and one over its spread; 0 where it has no vote."""
        usual = torch.zeros(len(self.bank.layout.flat), 2, self.width, dtype=self.bank.wide)
        for slot in self.bank.slots:
            usual[:, :, slot.number] = _inverted(slot)
        return usual.to(self.bank.device)

    @cached_property
    def on(self) -> Float[Tensor, "modules b p"]:
        """1 where a gate gives the weight, else 0."""
        return self._open.to(self.bank.device, self.bank.wide)

    @cached_property
    def fixed(self) -> Float[Tensor, "modules b p"]:
        """The weights that hold for the whole request; 0 in gated rows."""
        fixed = torch.zeros(len(self.bank.layout.flat), self.b, self.width, dtype=self.bank.wide)
        for row, line in enumerate(self.lines):
            if line.gate is None and line.slots:
                at = [slot.number for slot in line.slots]
                fixed[:, row, at] = line.weights.to(fixed.dtype)
        return fixed.to(self.bank.device)

    @cached_property
    def fixed_pages(self) -> Float[Tensor, "modules b R"]:
        """The same for each page."""
        return self.fixed @ self.owner.T

    @cached_property
    def asks(self) -> Float[Tensor, "b s"] | None:
        """1 for the rows of the router that a row uses; None where the bank has only one."""
        kinds = self.bank.routers
        every = all(line.gate in kinds or line.gate is None for line in self.lines)
        if not kinds or (len(kinds) == 1 and every):
            return None
        asks = torch.zeros(self.b, self.s, dtype=self.bank.wide)
        for row, line in enumerate(self.lines):
            if line.gate in kinds:
                rows = self.bank.router_rows(line.gate)
                asks[row, rows.start : rows.start + rows.rank] = 1
        return asks.to(self.bank.device)

    # --- gathered: each row reads its own pages only -------------------------------------------

    @cached_property
    def most_pages(self) -> int:
        """Pages of the row that has most: R of the gathered products."""
        return max((sum(len(s.pages) for s in line.slots) for line in self.lines), default=0)

    @cached_property
    def pages(self) -> Tensor:
        """[b, R] each row's pages; padded with page 0, which then has no owner in the row."""
        pages = torch.zeros(self.b, self.most_pages, dtype=torch.long)
        for row, line in enumerate(self.lines):
            mine = [page for slot in line.slots for page in slot.pages]
            pages[row, : len(mine)] = torch.tensor(mine, dtype=torch.long)
        return pages.to(self.bank.device)

    @cached_property
    def own(self) -> Float[Tensor, "b R p"]:
        """Whose each of a row's pages is, on the bank's p axis."""
        own = torch.zeros(self.b, self.most_pages, self.width, dtype=self.bank.wide)
        for row, line in enumerate(self.lines):
            at = 0
            for slot in line.slots:
                own[row, at : at + len(slot.pages), slot.number] = 1
                at += len(slot.pages)
        return own.to(self.bank.device)

    # --- by rows: what the compiled kernels read ------------------------------------------------

    @cached_property
    def page_count(self) -> int:
        """Pages of all rows together."""
        return sum(len(slot.pages) for line in self.lines for slot in line.slots)

    def rows(self, l: int) -> "Rows":
        """The tables of `l` tokens of each row."""
        if l not in self._rows:
            self._rows[l] = self._one if l == 1 else self._one.repeat(l)
        return self._rows[l]

    @cached_property
    def _one(self) -> "Rows":
        k = max((len(line.slots) for line in self.lines), default=0)
        modules = len(self.bank.layout.flat)
        made = Rows(
            pages=np.zeros((self.b, self.most_pages), np.int32),
            slots=np.zeros((self.b, self.most_pages), np.int32),
            counts=np.zeros((self.b, 2), np.int32),
            asks=np.zeros((self.b, 3), np.int32),
            present=np.zeros((modules, self.b, k), np.bool_),
            fixed=np.zeros((modules, self.b, k), np.float32),
            usual=np.zeros((modules, self.b, k, 2), np.float32),
            gains=np.zeros((self.b, 2), np.float32),
        )
        for row, line in enumerate(self.lines):
            at = 0
            for place, slot in enumerate(line.slots):
                made.pages[row, at : at + len(slot.pages)] = slot.pages
                made.slots[row, at : at + len(slot.pages)] = place
                made.present[:, row, place] = slot.present.numpy()
                at += len(slot.pages)
            made.counts[row] = at, len(line.slots)
            if line.gate is not None and line.slots:
                made.asks[row, 2] = 1 if line.offset is None else 2
                if line.gate in self.bank.routers:
                    router = self.bank.router_rows(line.gate)
                    made.asks[row, :2] = router.start, router.rank
                if line.offset is not None:
                    made.fixed[:, row, : len(line.slots)] = line.offset.numpy()
                if any(line.gains):
                    made.gains[row] = line.gains
                    for place, slot in enumerate(line.slots):
                        made.usual[:, row, place] = _inverted(slot).numpy()
            elif line.slots:
                made.fixed[:, row, : len(line.slots)] = line.weights.numpy()
        return made

    # ---------------------------------------------------------------------------------------------

    def slice(self, table: Tensor, g: int, block: int) -> Tensor:
        """The rows of a [modules, ...] table for one group in one block; a shared one as it is."""
        if table.shape[0] == 1:
            return table
        m = self.bank.layout.groups[g].m
        start = self.bank.layout.starts[g] + block * m
        return table[start : start + m]


def _inverted(slot: Slot) -> Float[Tensor, "modules 2"]:
    """(mean, 1 / spread) of a slot's usual responses; 0 where it lacks the module."""
    mean, spread = slot.usual.unbind(-1)
    return torch.stack([mean, 1 / spread], dim=-1) * slot.present[:, None]
