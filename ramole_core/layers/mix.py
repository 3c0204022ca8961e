"""The mixing itself, for all layers that share an input: from x to the weighted units of each.

    inner = x [A_r; A_1 ... A_p]^T            one product for q, k and v (or gate and up)
    score = (q gram * u) summed by owner      q = A_r x, u = A x, gram = B_r^T B / sqrt(s), float32
    alpha = softmax(score + mask)             or the request's fixed weights
    units = alpha[owner] * u                  then each layer adds  units B^T  to its own output

(RAMoLE, arXiv 2406.16989, eq. 6-11.) Three ways give the same numbers. *By rows*: a compiled kernel
walks each token's own pages; best for the few tokens of a decode step on a CPU. *All pages*: every
token meets every page of the bank, and masks say whose counts; each adapter is read once whoever
uses it. *Gathered*: the pages of each request are copied together and each row meets only its own.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ramole_core.layers import rows_kernel, surprise
from ramole_core.layers.lines import Lines

Votes = TypeVar("Votes", Tensor, np.ndarray)
Way = Literal["rows", "all", "gathered"]
# What a way costs, in pages that the kernel meets with a token in the same time; fitted on 2 cores
# to `python -m ramole_core.benchmarks.ways`, whose table is in LOG.md.
LAUNCHES = 1400
"""The matrix products and the gate's small ones, whatever their size."""
GATE = 5
"""The gate, for each token."""
PRODUCT = 19
"""So many pages of a matrix product cost as much as one by the kernel."""
GATHER_COST = 64
"""Copying one page of one request costs as much as its product with this many tokens."""


def cheapest(lines: Lines, l: int) -> Way:
    """The way that costs least for `l` tokens of each row."""
    bank, products = lines.bank, LAUNCHES + lines.b * l * (GATE + lines.high / PRODUCT)
    compiled = bank.device.type == "cpu" and bank.dtype in rows_kernel.DTYPES
    if compiled and lines.page_count * l <= products:
        return "rows"
    saved = lines.b * l * (lines.high - lines.most_pages)
    return "gathered" if saved > GATHER_COST * lines.b * (lines.s + lines.most_pages) else "all"


@dataclass
class Forward:
    """One forward of a batch: its lines, which way they run, and the gates if they are traced."""

    lines: Lines
    l: int
    way: Way
    alpha: list[list[Tensor | None]] | None = None
    """By group and block, [m, b, l, p], or [m, b, l, k] by rows; None: not traced."""
    votes: Any = None
    """[2, 2, b, l, p], or [2, 2, b*l, k] by rows: see `_votes`."""
    layer: int = -1

    @classmethod
    def of(cls, lines: Lines, l: int, *, trace: bool, way: Way | None = None) -> "Forward":
        kept: list[list[Tensor | None]] | None = None
        if trace and lines.gated:
            kept = [[None] * len(group.paths) for group in lines.bank.layout.groups]
        return cls(lines, l, way or cheapest(lines, l), kept)

    @property
    def gathers(self) -> bool:
        return self.way == "gathered"

    def units(self, x: Float[Tensor, "b l i"], g: int, block: int) -> Tensor | np.ndarray:
        """[m, b, l, R] (gathered) or [m, 1, b*l, R] (all pages), in the compute dtype; by rows
        [m, b*l, R] in float32."""
        lines, bank = self.lines, self.lines.bank
        if self.way == "rows":
            return self._by_rows(x, g, block)
        A, m, s = bank.A[g][block], bank.layout.groups[g].m, lines.s
        b, l = x.shape[:2]
        if self.gathers:
            mine = torch.cat([_router_pages(lines), lines.pages + s], dim=1)
            A = A[mine].flatten(1, 2)  # [b, (s+R) m, i]
            inner = torch.bmm(x.to(A.dtype), A.transpose(1, 2))
            u = _by_module(inner.view(b, l, -1, m), lines)
        else:
            A = A[: s + lines.high].flatten(0, 1)
            inner = x.reshape(b * l, -1).to(A.dtype) @ A.T
            u = _by_module(inner.view(1, b * l, -1, m), lines)
        q, u = u[..., :s], u[..., s:]
        if lines.gated:
            weight = self._gate(q, u, g, block)
        else:
            weight = self._fixed(g, block, l)
        return (weight * u).to(bank.dtype)

    def _by_rows(self, x: Tensor, g: int, block: int) -> np.ndarray:
        bank, rows = self.lines.bank, self.lines.rows(self.l)
        A, gram, _ = bank.views(g, block)
        m = bank.layout.groups[g].m
        n, most = rows.pages.shape
        units = np.empty((m, n, most), np.float32)
        alpha = np.zeros((m, *rows.present.shape[1:]), np.float32)
        flat = rows_kernel.view(x.reshape(n, -1).to(bank.dtype))
        first = bank.layout.starts[g] + block * m
        rows_kernel.weigh(
            flat,
            A,
            gram,
            rows.pages,
            rows.slots,
            rows.counts,
            rows.asks,
            rows.present,
            rows.fixed,
            rows.usual,
            rows.gains,
            first,
            self._votes_by_rows(g, block, n),
            units,
            alpha,
        )
        if self.alpha is not None:
            self.alpha[g][block] = torch.from_numpy(alpha).view(m, -1, self.l, alpha.shape[-1])
        return units

    def _fixed(self, g: int, block: int, l: int) -> Tensor:
        lines = self.lines
        if self.gathers:
            fixed = lines.slice(lines.fixed, g, block)
            return (fixed[:, :, None] @ lines.own.transpose(1, 2)).expand(-1, -1, l, -1)
        fixed = lines.slice(lines.fixed_pages, g, block)
        return fixed[:, :, None].expand(-1, -1, l, -1).reshape(len(fixed), 1, lines.b * l, -1)

    def _gate(self, q: Tensor, u: Tensor, g: int, block: int) -> Tensor:
        """Weights of each page, [m, c, n, R]."""
        lines = self.lines
        gram = lines.bank.gram[g][block]  # [m, s, pages]
        if lines.asks is not None:
            q = q * (lines.asks[:, None] if self.gathers else self._tokens(lines.asks))
        if self.gathers:
            gram, owner = gram[:, :, lines.pages].transpose(1, 2), lines.own
        else:
            gram, owner = gram[:, None, :, : lines.high], lines.owner
        m = len(q)
        score = (_product(q, gram) * u) @ owner
        score = score.view(m, lines.b, self.l, -1) + lines.slice(lines.mask, g, block)[:, :, None]
        if lines.surprised:
            score += self._surprise((u.square() @ owner).view(score.shape), g, block)
        alpha = score.softmax(-1)
        if not lines.plain:
            on, fixed = lines.slice(lines.on, g, block), lines.slice(lines.fixed, g, block)
            alpha = torch.addcmul(fixed[:, :, None], alpha, on[:, :, None])
        if self.alpha is not None:
            self.alpha[g][block] = alpha
        if self.gathers:
            return alpha @ owner.transpose(1, 2)
        return (alpha.view(m, lines.b * self.l, -1) @ owner.T)[:, None]

    def _surprise(self, energy: Float[Tensor, "m b l p"], g: int, block: int) -> Tensor:
        """What |v|^2 of each adapter adds to its score; the votes of this layer grow."""
        lines = self.lines
        usual = lines.slice(lines.usual, g, block)[:, :, None, None]  # [m, 2, 1, 1, p]
        z = (0.5 * torch.log(energy + surprise.TINY) - usual[:, 0]) * usual[:, 1]
        z = z.clamp(-surprise.MOST, surprise.MOST)
        votes = self._votes(g, block, lambda: torch.zeros(2, 2, *z.shape[1:]).to(z))
        below = votes[0, 0] / votes[0, 1].clamp(min=1)
        votes[1, 0] += z.sum(0)
        votes[1, 1] += (usual[:, 1] != 0).sum(0)
        gains = lines.gains[:, :, None, None]
        return gains[:, 0] * z + gains[:, 1] * below

    def _votes_by_rows(self, g: int, block: int, n: int) -> np.ndarray:
        k = self.lines.rows(self.l).present.shape[-1]
        return self._votes(g, block, lambda: np.zeros((2, 2, n, k), np.float32))

    def _votes(self, g: int, block: int, make: Callable[[], Votes]) -> Votes:
        """Sum and number of the surprises of the layers below, and of this layer's so far."""
        if self.votes is None:
            self.votes = make()
        layer = self._layer_of(g, block)
        if layer != self.layer:
            self.layer = layer
            self.votes[0] += self.votes[1]
            self.votes[1] = 0
        return self.votes

    def _layer_of(self, g: int, block: int) -> int:
        layout = self.lines.bank.layout
        return layout.places.at[layout.groups[g].paths[block][0]][0]

    def _tokens(self, table: Float[Tensor, "b s"]) -> Tensor:
        return table[:, None].expand(-1, self.l, -1).reshape(1, -1, table.shape[-1])

    def add(self, y: Tensor, units: Tensor | np.ndarray, g: int, block: int, j: int) -> Tensor:
        """y [b, l, o] with the update of module j added, in place where it can be."""
        if isinstance(units, np.ndarray):
            rows, B = self.lines.rows(self.l), self.lines.bank.views(g, block)[2][j]
            if y.dtype not in rows_kernel.DTYPES or not y.is_contiguous():
                y = y.to(self.lines.bank.dtype).contiguous()
            out = rows_kernel.view(y.view(-1, y.shape[-1]))
            rows_kernel.add(out, units, B, rows.pages, rows.counts)
            return y
        B, o = self.lines.bank.B[g][j][block], y.shape[-1]
        if self.gathers:
            return torch.baddbmm(y, units.to(y.dtype), B[self.lines.pages].to(y.dtype))
        flat = y.view(-1, o)
        torch.addmm(flat, units[0].to(y.dtype), B[: self.lines.high].to(y.dtype), out=flat)
        return y

    def weights(self, rows: list[int]) -> Float[Tensor, "b l layer module k"]:
        """The weights of these rows at the tokens of the forward, float16 on the CPU."""
        lines, layout = self.lines, self.lines.bank.layout
        k = max((lines.lines[row].k for row in rows), default=0)
        flat = torch.zeros(len(layout.flat), len(rows), self.l, k)
        gated = [
            n for n, row in enumerate(rows) if lines.lines[row].gate and lines.lines[row].slots
        ]
        if gated and self.alpha is not None:
            at = torch.tensor([rows[n] for n in gated], device=lines.bank.device)
            found = torch.cat([a for group in self.alpha for a in group if a is not None])[:, at]
            if self.way == "rows":
                found = found[..., :k]
            else:
                numbers = lines.numbers[:, :k].to(lines.bank.device)[at][None, :, None, :]
                found = found.gather(-1, numbers.expand(*found.shape[:1], -1, self.l, -1))
            flat[:, gated, :, : found.shape[-1]] = found.float().cpu()
        for n, row in enumerate(rows):
            line = lines.lines[row]
            if n in gated:
                flat[:, n, :, line.k :] = 0
            elif line.slots:
                shown = line.weights if line.shown is None else line.shown
                flat[:, n, :, : line.k] = shown[:, None]
        layers, modules = len(layout.places.layers), len(layout.places.modules)
        every = torch.zeros(layers * modules, len(rows), self.l, k, dtype=torch.float16)
        every[layout.trace_order] = flat.half()
        return every.view(layers, modules, len(rows), self.l, k).permute(2, 3, 0, 1, 4)


def _by_module(inner: Float[Tensor, "c n R m"], lines: Lines) -> Float[Tensor, "m c n R"]:
    """Modules first, in the gate's dtype."""
    out = torch.empty(
        inner.shape[3], *inner.shape[:3], dtype=lines.bank.wide, device=lines.bank.device
    )
    return out.copy_(inner.permute(3, 0, 1, 2))


def _product(q: Float[Tensor, "m c n s"], gram: Float[Tensor, "m c s R"]) -> Tensor:
    m, c, n, s = q.shape
    found = torch.bmm(q.reshape(m * c, n, s), gram.reshape(m * c, s, gram.shape[-1]))
    return found.view(m, c, n, -1)


def _router_pages(lines: Lines) -> Tensor:
    return torch.arange(lines.s, device=lines.bank.device).expand(lines.b, -1)
