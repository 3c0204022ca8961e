"""The mixing itself, for all layers that share an input: from x to the weighted units of each.

    inner = x [A_r; A_1 ... A_p]^T            one product for q, k and v (or gate and up)
    score = (q gram * u) summed by owner      q = A_r x, u = A x, gram = B_r^T B / sqrt(s), float32
    alpha = weigh(score + the gate's other terms), or the request's fixed weights
    units = alpha[owner] * u                  then each layer adds  units B^T  to its own output

(RAMoLE, arXiv 2406.16989, eq. 6-11.) Two ways give the same numbers. *By rows*: a compiled kernel
walks each token's own pages; best for the few tokens of a decode step on a CPU. *All pages*: every
token meets every page of the bank, and masks say whose counts; each adapter is read once whoever
uses it.
"""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ramole_core.composition import Signal, block_of
from ramole_core.composition.surprise import MOST, TINY
from ramole_core.layers import rows_kernel
from ramole_core.layers.batch_mix import FIXED, BatchMix
from ramole_core.layers.late_scores import ACTIVATIONS, late_scores, module_signal
from ramole_core.layers.weigh import weigh

Way = Literal["rows", "all"]
# What a way costs, in pages that the kernel meets with a token in the same time; fitted on 2 cores
# to `python -m ramole_core.benchmarks.ways`, whose table is in LOG.md.
LAUNCHES = 1400
"""The matrix products and the gate's small ones, whatever their size."""
GATE = 5
"""The gate, for each token."""
PRODUCT = 19
"""So many pages of a matrix product cost as much as one by the kernel."""


def cheapest(batch: BatchMix, l: int) -> Way:
    """The way that costs least for `l` tokens of each row."""
    bank, products = batch.bank, LAUNCHES + batch.b * l * (GATE + batch.high / PRODUCT)
    compiled = bank.device.type == "cpu" and bank.dtype in rows_kernel.DTYPES
    return "rows" if compiled and batch.page_count * l <= products else "all"


@dataclass
class Forward:
    """One forward of a batch: how it is mixed, which way, and its gates if they are traced."""

    batch: BatchMix
    l: int
    way: Way
    alpha: list[list[Tensor | None]] | None = None
    """By group and block, [m, b, l, k]; None: not traced."""
    faults: dict[int, Exception] = field(default_factory=dict)
    """By row: what a method's own score raised. Its weights are not to be used."""
    _late: dict[int, tuple[str, Tensor]] = field(default_factory=dict)
    """By row: the block that runs, and the scores that its modules share."""

    @classmethod
    def of(cls, batch: BatchMix, l: int, *, trace: bool, way: Way | None = None) -> "Forward":
        kept: list[list[Tensor | None]] | None = None
        if trace and batch.gated:
            kept = [[None] * len(group.paths) for group in batch.bank.layout.groups]
        return cls(batch, l, way or cheapest(batch, l), kept)

    def enter(self, path: str, x: Float[Tensor, "b l _"]) -> None:
        """A block begins: the gates that read its input give their scores."""
        for n in self.batch.late:
            gate = self.batch.rows[n].gate
            if gate is not None and gate.per == "block" and n not in self.faults:
                self._late[n] = path, self._try(n, Signal(path, x[n]))

    def units(self, x: Float[Tensor, "b l i"], g: int, block: int) -> Tensor | np.ndarray:
        """[m, b*l, R] in the compute dtype; by rows in float32."""
        late = self._late_scores(x, g, block) if self.batch.late else None
        if self.way == "rows":
            return self._by_rows(x, g, block, late)
        batch, bank = self.batch, self.batch.bank
        m, s, (b, l) = bank.layout.groups[g].m, batch.s, x.shape[:2]
        A = bank.A[g][block][: s + batch.high].flatten(0, 1)
        inner = x.reshape(b * l, -1).to(A.dtype) @ A.T
        inner = _modules_first(inner.view(b * l, -1, m), bank.wide)
        q, u = inner[..., :s], inner[..., s:]
        for name, pages in batch.page_acts:
            u = torch.where(pages, ACTIVATIONS[name](u), u)
        if batch.gated:
            alpha = self._gate(q, u, g, block, late)
            weight = batch.spread(alpha.transpose(1, 2)).transpose(1, 2).reshape(m, b * l, -1)
            weight = weight @ batch.owner.T
        else:
            fixed = batch.slice(batch.fixed_pages, g, block)
            weight = fixed[:, :, None].expand(-1, -1, l, -1).reshape(m, b * l, -1)
        return (weight * u).to(bank.dtype)

    def _gate(
        self, q: Tensor, u: Tensor, g: int, block: int, late: Tensor | None
    ) -> Float[Tensor, "m b l k"]:
        batch, bank = self.batch, self.batch.bank
        at = batch.numbers.clamp(max=batch.width - 1)[None, :, None]

        def by_adapter(units: Float[Tensor, "m n R"]) -> Float[Tensor, "m b l k"]:
            found = (units @ batch.owner).view(len(units), batch.b, self.l, -1)
            return found.gather(-1, at.expand(*found.shape[:-1], -1))

        def row(name: str) -> Tensor:
            return batch.table(name)

        def module(name: str) -> Tensor:
            return batch.slice(batch.table(name), g, block)[:, :, None]

        if (mask := batch.router_mask) is not None:
            q = q * mask[:, None].expand(-1, self.l, -1).reshape(1, -1, mask.shape[-1])
        score = by_adapter(torch.bmm(q, bank.gram[g][block][..., : batch.high]) * u)
        score = score + module("fixed")
        if batch.surprised:
            mean, inverse = module("usual").unbind(-1)
            logs = 0.5 * torch.log(by_adapter(u.square()) + TINY)
            z = ((logs - mean) * inverse).clamp(-MOST, MOST) * module("present")
            score = score + row("own")[:, None, None] * z
        if late is not None:
            score = score + late
        asks = row("asks")[:, None, None]
        alpha = weigh(
            score,
            allowed=batch.slice(batch.allowed, g, block)[:, :, None],
            present=module("present"),
            top=asks[..., 3] if batch.ranked else 0,
            raw=asks[..., 4] > 0 if batch.raw else False,
            bias=module("bias"),
        )
        alpha = torch.where(asks[..., 0] == FIXED, module("fixed"), alpha)
        if self.alpha is not None:
            self.alpha[g][block] = alpha
        return alpha

    def _by_rows(self, x: Tensor, g: int, block: int, late: Tensor | None) -> np.ndarray:
        bank, rows = self.batch.bank, self.batch.for_tokens(self.l)
        A, gram, _ = bank.views(g, block)
        m = bank.layout.groups[g].m
        n, most = rows.pages.shape
        k = rows.present.shape[-1]
        units = np.empty((m, n, most), np.float32)
        alpha = np.zeros((m, n, k), np.float32)
        more = NONE if late is None else late.float().reshape(m, n, k).numpy()
        rows_kernel.weigh(
            rows_kernel.view(x.reshape(n, -1).to(bank.dtype)),
            A,
            gram,
            rows.pages,
            rows.slots,
            rows.acts,
            rows.counts,
            rows.asks,
            rows.present,
            rows.fixed,
            rows.bias,
            rows.usual,
            rows.own,
            more,
            bank.layout.starts[g] + block * m,
            units,
            alpha,
        )
        if self.alpha is not None:
            self.alpha[g][block] = torch.from_numpy(alpha).view(m, -1, self.l, k)
        return units

    # --- the gates' own scores ------------------------------------------------------------------

    def _late_scores(
        self, x: Float[Tensor, "b l i"], g: int, block: int
    ) -> Float[Tensor, "m b l k"]:
        batch, bank = self.batch, self.batch.bank
        paths = bank.layout.groups[g].paths[block]
        late = x.new_zeros(len(paths), batch.b, self.l, batch.k, dtype=batch.bank.wide)
        for n in batch.late:
            row = batch.rows[n]
            k = len(row.slots)
            if n in self.faults or row.gate is None:
                continue
            if row.gate.per == "block":
                path, scores = self._late.get(n, ("", None))
                if path == block_of(paths[0]) and scores is not None:
                    late[:, n, :, :k] = scores
                continue
            first, mine = batch.bank.layout.starts[g] + block * len(paths), x[n].to(bank.dtype)
            for j, path in enumerate(paths):
                if not any(slot.present[first + j] for slot in row.slots):
                    continue
                u = [mine @ batch.bank.units_of(slot, g, block, j).T for slot in row.slots]
                late[j, n, :, :k] = self._try(n, module_signal(path, x[n], u))
        return late

    def _try(self, n: int, signal: Signal) -> Float[Tensor, "l k"]:
        """A row's own scores; 0 from the first fault on, which is kept."""
        row = self.batch.rows[n]
        assert row.gate is not None
        try:
            return late_scores(row.gate, signal, len(row.slots))
        except Exception as error:
            self.faults[n] = error
            return signal.x.new_zeros(self.l, len(row.slots), dtype=self.batch.bank.wide)

    # --- the layers' side ------------------------------------------------------------------------

    def add(self, y: Tensor, units: Tensor | np.ndarray, g: int, block: int, j: int) -> Tensor:
        """y [b, l, o] with the update of module j added, in place where it can be."""
        if isinstance(units, np.ndarray):
            rows, B = self.batch.for_tokens(self.l), self.batch.bank.views(g, block)[2][j]
            if y.dtype not in rows_kernel.DTYPES or not y.is_contiguous():
                y = y.to(self.batch.bank.dtype).contiguous()
            out = rows_kernel.view(y.view(-1, y.shape[-1]))
            rows_kernel.add(out, units, B, rows.pages, rows.counts)
            return y
        B, flat = self.batch.bank.B[g][j][block], y.view(-1, y.shape[-1])
        torch.addmm(flat, units.to(y.dtype), B[: self.batch.high].to(y.dtype), out=flat)
        return y

    def weights(self, rows: list[int]) -> Float[Tensor, "b l layer module k"]:
        """The weights of these rows at the tokens of the forward, float16 on the CPU."""
        batch, layout = self.batch, self.batch.bank.layout
        k = max((batch.rows[row].k for row in rows), default=0)
        flat = torch.zeros(len(layout.flat), len(rows), self.l, k)
        gated = [n for n, row in enumerate(rows) if batch.rows[row].gate is not None]
        if gated and self.alpha is not None:
            at = torch.tensor([rows[n] for n in gated], device=batch.bank.device)
            found = torch.cat([a for group in self.alpha for a in group if a is not None])[:, at]
            width = min(k, found.shape[-1])
            flat[:, gated, :, :width] = found[..., :width].float().cpu()
        for n, row in enumerate(rows):
            mix = batch.rows[row]
            if n in gated:
                flat[:, n, :, mix.k :] = 0
            elif mix.slots:
                flat[:, n, :, : mix.k] = mix.decision.weights[:, None]
        layers, modules = len(layout.places.layers), len(layout.places.modules)
        every = torch.zeros(layers * modules, len(rows), self.l, k, dtype=torch.float16)
        every[layout.trace_order] = flat.half()
        return every.view(layers, modules, len(rows), self.l, k).permute(2, 3, 0, 1, 4)


NONE = np.zeros((0, 0, 0), np.float32)
"""No scores beside the tables."""


def _modules_first(inner: Float[Tensor, "n R m"], dtype: torch.dtype) -> Float[Tensor, "m n R"]:
    """Modules first, in the gate's dtype."""
    out = torch.empty(inner.shape[2], *inner.shape[:2], dtype=dtype, device=inner.device)
    return out.copy_(inner.permute(2, 0, 1))
