"""The tables by which layers mix the rows of a forward.

A row is a request, or a part of one that is mixed in its own way. Tables are built once per change
of membership, not per step, and nothing in them grows with the tokens; they are [modules, b, k], k
being each row's own adapters in its own order.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ramole_core.composition import Decision, Gate, UnitScore
from ramole_core.kernels.gate import INPUTS
from ramole_core.layers.bank import Bank, Slot
from ramole_core.layers.gate_softmax import form_of

FIXED, MASKED, KEEPS = 0, 1, 2
"""Source of a row's weights: a table; a gate over adapters that have the module; over all."""
PAGES = 16
"""Tables have room for a multiple of so many pages, so that those of many rows are of one size."""
ACTIVATIONS = ("", "gelu", "relu")
"""Activations of a page's unit, in the kernel's numbering."""


@dataclass(frozen=True, eq=False)
class RowMix:
    """One row's decision and its adapters in the bank."""

    slots: tuple[Slot, ...]
    """Its adapters; a merge is one."""
    decision: Decision
    bypass: Slot | None
    present: Bool[Tensor, "module slot"]
    """Modules in which each slot counts."""
    lacks: Bool[Tensor, "module k"] | None = None
    """Where an adapter of a merge lacks the module; None: it is no merge."""
    score_table: np.ndarray | None = None
    """What the kernel reads for its gate's own score (`gate_softmax.py`); None: nothing."""

    @property
    def has(self) -> Bool[Tensor, "module k"]:
        """The modules of each adapter of the trace."""
        return self.present if self.lacks is None else ~self.lacks

    @property
    def gate(self) -> Gate | None:
        return self.decision.gate if self.slots else None

    @property
    def held(self) -> tuple[Slot, ...]:
        """All slots of the row in the bank."""
        return self.slots if self.bypass is None else (*self.slots, self.bypass)

    @property
    def weights(self) -> Float[Tensor, "module slot"]:
        """Weights of each slot where no gate decides."""
        found, merged = self.decision.weights, self.decision.merge is not None
        return torch.ones(len(found), len(self.slots)) if merged else found


@dataclass(frozen=True)
class Rows:
    """Each row's own pages, as `kernels.mixing` takes them."""

    pages: np.ndarray
    """[b, R] int32; R is at least the pages of each row."""
    slots: np.ndarray
    """[b, R] int32: the place of each page's adapter among the row's own; k: a bypass."""
    acts: np.ndarray
    """[b, R] int8: place in ACTIVATIONS."""
    counts: np.ndarray
    """[b, 2] int32: pages and adapters."""
    asks: np.ndarray
    """[b, 5] int32: FIXED, MASKED or KEEPS; first row and rank of the router; how many adapters
    share the weight (0: all); 1 where the scores are the weights."""
    present: np.ndarray
    """[modules, b, k] bool."""
    fixed: np.ndarray
    """[modules, b, k] float32: the weights, or what is added to the scores where a gate decides."""
    bias: np.ndarray
    """[modules, b, k] float32: added to a gate's weights."""
    usual: np.ndarray
    """[modules, b, k, 2] float32: mean of log |v|, and one over its deviation."""
    own: np.ndarray
    """[b] float32: the factor of the activation z-score."""
    forms: np.ndarray
    """[b, 2] int32: the form of a score that the kernel computes, 0 for none, and its `top`."""
    form_tables: np.ndarray
    """[b] int64: the address of what it reads, which the row keeps."""

    @classmethod
    def empty(cls, modules: int, b: int, k: int, R: int) -> "Rows":
        """Zeros of these sizes."""
        return cls(
            pages=np.zeros((b, R), np.int32),
            slots=np.zeros((b, R), np.int32),
            acts=np.zeros((b, R), np.int8),
            counts=np.zeros((b, 2), np.int32),
            asks=np.zeros((b, 5), np.int32),
            present=np.zeros((modules, b, k), np.bool_),
            fixed=np.zeros((modules, b, k), np.float32),
            bias=np.zeros((modules, b, k), np.float32),
            usual=np.zeros((modules, b, k, 2), np.float32),
            own=np.zeros(b, np.float32),
            forms=np.zeros((b, 2), np.int32),
            form_tables=np.zeros(b, np.int64),
        )

    @property
    def input_forms(self) -> frozenset[int]:
        """The forms of all rows whose score is W x."""
        return frozenset(form for form in self.forms[:, 0].tolist() if form >= INPUTS)


class BatchMix:
    """The requests of one batch, in the order of its rows; valid while `version` is the bank's."""

    def __init__(self, bank: Bank, rows: Sequence[RowMix]):
        self.bank, self.rows = bank, tuple(rows)
        self.version = bank.version
        self.b = len(rows)
        self.k = max((len(row.slots) for row in rows), default=0)
        """Most slots of a row, a bypass not counted."""
        self.s, self.high, self.width = bank.tensors.s, bank.high, bank.width
        self.gated = any(row.gate is not None for row in rows)
        self.late = [n for n, row in enumerate(rows) if row.gate is not None and row.gate.late]
        """Rows whose gates have terms beside the tables."""
        self.late_by_rows = [n for n in self.late if rows[n].score_table is None]
        """Those whose terms the kernel of `by rows` does not compute."""
        self.scopes = {
            n: bank.layout.sites.scopes[gate.per]
            for n in self.late
            if (gate := rows[n].gate) is not None and gate.per != "module"
        }
        """By row: the blocks or parents whose input its gate reads, where it reads that."""
        self.mixes = any(row.held for row in rows)
        self._tensors: dict[str, Tensor] = {}

    # --- by rows: what the compiled kernel reads ------------------------------------------------

    @cached_property
    def tables(self) -> Rows:
        """The tables, made on first use."""
        most = max((sum(len(s.pages) for s in row.held) for row in self.rows), default=0)
        made = Rows.empty(len(self.bank.layout.flat), self.b, self.k, -(-most // PAGES) * PAGES)
        for n, row in enumerate(self.rows):
            self._fill(made, n, row)
        return made

    @property
    def sizes(self) -> tuple[object, ...]:
        """What another batch's tables have in common with these where they can take their place;
        in neither a score in PyTorch."""
        tables = self.tables
        width, forms = tables.pages.shape[1], tables.input_forms
        return self.b, self.k, width, self.mixes, self.s, forms

    def take(self, other: "BatchMix") -> None:
        """Refill the tables, where they lie, with those of other rows; `sizes` are equal."""
        for one in fields(Rows):
            getattr(self.tables, one.name)[:] = getattr(other.tables, one.name)
        self.rows, self.version = other.rows, other.version

    def _fill(self, made: Rows, n: int, row: RowMix) -> None:
        at = 0
        for place, slot in enumerate(row.held):
            here = slice(at, at + len(slot.pages))
            made.pages[n, here] = slot.pages
            made.slots[n, here] = place
            made.acts[n, here] = ACTIVATIONS.index(slot.activation)
            at = here.stop
        k = len(row.slots)
        made.counts[n] = at, k
        made.present[:, n, :k] = row.present.numpy()
        gate = row.gate
        if gate is None:
            made.fixed[:, n, :k] = _array(row.weights)
            return
        made.asks[n, 0] = KEEPS if gate.keeps else MASKED
        if gate.router is not None:
            router = self.bank.tensors.routers[gate.router.checksum]
            made.asks[n, 1:3] = router.start, router.rank
        made.asks[n, 3:] = gate.top, not gate.softmax
        if gate.offset is not None:
            made.fixed[:, n, :k] = _array(gate.offset)
        if gate.bias is not None:
            made.bias[:, n, :k] = _array(gate.bias)
        if row.score_table is not None:
            top = gate.score.top if isinstance(gate.score, UnitScore) else 0
            made.forms[n] = form_of(gate), top
            made.form_tables[n] = row.score_table.ctypes.data
        if gate.own and gate.usual is not None:
            made.own[n] = gate.own
            mean, deviation = gate.usual.float().unbind(-1)
            made.usual[:, n, :k] = _array(torch.stack([mean, 1 / deviation], dim=-1))

    # --- all pages: what the matrix products read ------------------------------------------------

    @cached_property
    def owner(self) -> Float[Tensor, "R p"]:
        return self.bank.owner()

    @cached_property
    def numbers(self) -> Int[Tensor, "b k"]:
        """Columns of each row's adapters among the p; `width` where it has fewer than k."""
        rows = [[s.number for s in row.slots] for row in self.rows]
        rows = [row + [self.width] * (self.k - len(row)) for row in rows]
        found = torch.tensor(rows, dtype=torch.long, device=self.bank.device)
        return found.reshape(self.b, self.k)

    @cached_property
    def bypassed(self) -> Float[Tensor, "b p"]:
        """1 at the columns of the rows' bypasses."""
        found = torch.zeros(self.b, self.width, dtype=self.bank.wide)
        for n, row in enumerate(self.rows):
            if row.bypass is not None:
                found[n, row.bypass.number] = 1
        return found.to(self.bank.device)

    @cached_property
    def page_acts(self) -> list[tuple[str, Bool[Tensor, "R"]]]:
        """Each activation in the bank, and the pages that have it."""
        found = {}
        for slot in self.bank.slots:
            if slot.activation:
                at = found.setdefault(slot.activation, torch.zeros(self.high, dtype=torch.bool))
                at[slot.pages] = True
        return [(act, at.to(self.bank.device)) for act, at in found.items()]

    def table(self, name: str) -> Tensor:
        """A [modules, b, ...] or [b, ...] table of `Rows`, as a tensor where the model runs."""
        if name not in self._tensors:
            made = torch.from_numpy(getattr(self.tables, name))
            made = made.to(self.bank.wide) if made.is_floating_point() else made
            self._tensors[name] = made.to(self.bank.device)
        return self._tensors[name]

    @cached_property
    def allowed(self) -> Bool[Tensor, "modules b k"]:
        """The mask of adapters that take part in a gate."""
        every = torch.arange(self.k, device=self.bank.device) < self.table("counts")[:, 1:]
        return self.table("present") | (every & (self.table("asks")[:, :1] == KEEPS))

    @cached_property
    def ranked(self) -> bool:
        """Whether a row's gate weights its top n only."""
        return bool(self.tables.asks[:, 3].any())

    @cached_property
    def raw(self) -> bool:
        """Whether a row's scores are its weights."""
        return bool(self.tables.asks[:, 4].any())

    @cached_property
    def surprised(self) -> bool:
        """Whether a row's gate uses activation z-scores."""
        return bool(self.tables.own.any())

    @cached_property
    def fixed_pages(self) -> Float[Tensor, "modules b R"]:
        """The weight of each page where no row has a gate."""
        return self.spread(self.table("fixed") * self.table("present")) @ self.owner.T

    def spread(
        self, alpha: Float[Tensor, "m n k"], rows: Int[Tensor, "n"] | None = None
    ) -> Float[Tensor, "m n p"]:
        """Spread each row's weights to the bank's p axis, bypasses with weight 1; two adapters of
        one content share a column, and their weights add up. `rows`: those that alpha is of."""
        numbers, bypassed = self.numbers, self.bypassed
        if rows is not None:
            numbers, bypassed = numbers[rows], bypassed[rows]
        wide = alpha.new_zeros(*alpha.shape[:-1], self.width + 1)
        return wide.scatter_add_(-1, numbers.expand(alpha.shape), alpha)[..., :-1] + bypassed

    @cached_property
    def router_mask(self) -> Float[Tensor, "b s"] | None:
        """1 for the rows of the router that a row uses; None where the bank has only one and all
        gates use it."""
        asks = self.tables.asks
        routed = all(row.gate is None or row.gate.router is not None for row in self.rows)
        if len(self.bank.tensors.routers) <= routed:
            return None
        at = torch.arange(self.s)
        start, rank = torch.from_numpy(asks[:, 1:2]), torch.from_numpy(asks[:, 2:3])
        return ((at >= start) & (at < start + rank)).to(self.bank.device, self.bank.wide)

    def slice(self, table: Tensor, g: int, block: int) -> Tensor:
        """Slice a [modules, ...] table to one group in one block."""
        start = self.bank.layout.first(g, block)
        return table[start : start + self.bank.layout.groups[g].m]


def _array(table: Tensor) -> np.ndarray:
    return table.detach().float().cpu().numpy()
