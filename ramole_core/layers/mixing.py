"""Mix adapters for all layers that share an input: from x to weighted units.

    inner = x [A_r; A_1 ... A_p]^T            one product for q, k and v (or gate and up)
    score = (q gram * u) summed by owner      q = A_r x, u = A x, gram = B_r^T B / sqrt(s), float32
    alpha = weigh(score + the gate's other terms), or the request's fixed weights
    units = alpha[owner] * u                  then each layer adds  units B^T  to its own output

(RAMoLE, arXiv 2406.16989, eq. 6-11.) The tokens of all rows stand side by side. Two ways give the
same numbers within rounding. *By rows*: a compiled kernel walks each token's own pages, so that no
other token changes a bit; always on a CPU. *All pages*: every token is multiplied with every page
of the bank, and masks select its own; each adapter is read once for all rows. There all behind the
first product may be one launch for all layers that share the input (`fused.py`).
"""

from collections.abc import Sequence
from functools import cached_property, partial
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ramole_core.composition.activation import MAX_Z, log_norm
from ramole_core.kernels.input_scores import UNITS_STEP, WEIGHTS_STEP
from ramole_core.kernels.weight import Input, Update
from ramole_core.layers.batch_mix import FIXED, BatchMix
from ramole_core.layers.fused import Fused, RawUnits
from ramole_core.layers.gate_softmax import ACTIVATIONS, weigh
from ramole_core.layers.late_scores import LateScores
from ramole_core.layers.rows_mixing import RowsMixing
from ramole_core.layers.traced import Traced, TracedPart

Way = Literal["rows", "all"]


def way_of(batch: BatchMix) -> Way:
    """The way of mixing: by rows wherever the kernels run."""
    return "rows" if batch.bank.by_rows else "all"


class Forward:
    """The mixing of one forward, with traces on request."""

    def __init__(
        self,
        batch: BatchMix,
        counts: Sequence[int],
        late: LateScores,
        traced: Traced | None,
        fused: Fused | None,
    ):
        """`counts`: tokens of each row, in order. `traced`: what the traces of rows need. `fused`
        mixes all pages in one launch; None: PyTorch does."""
        self.batch, self.counts, self.late, self.traced = batch, tuple(counts), late, traced
        self.rows = RowsMixing(batch, counts, traced=traced) if late.by_rows else None
        """Mixing by rows, where kernels run."""
        self.fused = None if late.by_rows else fused
        self._parts: dict[tuple[int, ...], Forward] = {}

    @classmethod
    def of(
        cls,
        batch: BatchMix,
        counts: Sequence[int],
        *,
        starts: Sequence[int] | None = None,
        trace: Sequence[int] = (),
        way: Way | None = None,
        fused: Fused | None = None,
    ) -> "Forward":
        """`trace` are the rows whose weights and contributions are recorded."""
        by_rows = (way or way_of(batch)) == "rows"
        late = LateScores(batch, counts, starts or [0] * len(counts), by_rows=by_rows)
        traced = Traced(batch, counts, trace) if trace else None
        taken = fused is not None and fused.takes(batch, counts)
        return cls(batch, counts, late, traced, fused if taken else None)

    @cached_property
    def row_of(self) -> Int[Tensor, "N"]:
        """The row of each token."""
        counts = torch.tensor(self.counts)
        return torch.repeat_interleave(torch.arange(len(counts)), counts).to(self.batch.bank.device)

    def part(self, tokens: Int[Tensor, "n"]) -> "Forward":
        """The mixing of a part of the tokens, ascending, for layers that get only these."""
        key = tuple(tokens.tolist())
        found = self._parts.get(key)
        if found is None:
            rows = np.searchsorted(np.cumsum(self.counts), key, side="right")
            counts = np.bincount(rows, minlength=len(self.counts)).tolist()
            late, within = self.late, (self.late, tokens)
            late = LateScores(
                self.batch, counts, [0] * len(counts), by_rows=late.by_rows, within=within
            )
            traced = None if self.traced is None else TracedPart(self.traced, key)
            fused = None if self.fused is None or self.fused.fault else self.fused
            found = self._parts[key] = Forward(self.batch, counts, late, traced, fused)
        return found

    def clear(self) -> None:
        """Set what earlier rows left to 0, before others are mixed in the same memory."""
        if self.traced is not None:
            self.traced.recorded[:] = 0

    def enter(self, path: str, x: Tensor) -> None:
        """Enter a block or parent with its input, for the gates that read it."""
        self.late.enter(path, x)
        if self.rows is not None:
            self.rows.enter(path, x)

    def reads(self, g: int) -> bool:
        """Whether adapters in the bank change this group's layers."""
        return g not in self.batch.bank.tensors.asleep

    def units(
        self, x: Float[Tensor, "*b i"], given: Input, g: int, block: int
    ) -> Float[Tensor, "m N R"] | np.ndarray | RawUnits:
        """Weighted units in the compute dtype; by rows, of `given` (x as kernels read it), in
        float32. A draft of them where they are weighed and added in one launch."""
        if self.rows is not None:
            return self._by_rows(x, given, g, block)
        x = x.reshape(-1, x.shape[-1])
        batch, bank = self.batch, self.batch.bank
        A = bank.tensors.A[g][block][: batch.s + batch.high].flatten(0, 1)
        inner = (x.to(A.dtype) @ A.T).view(len(x), -1, bank.layout.groups[g].m)
        late = self.late.of(x, g, block) if batch.late else None
        draft = RawUnits(inner, late)
        return draft if self.fused is not None else self._weighted(draft, g, block)

    def _weighted(self, draft: RawUnits, g: int, block: int) -> Float[Tensor, "m N R"]:
        batch, bank = self.batch, self.batch.bank
        inner = _modules_first(draft.inner, bank.wide)
        q, u = inner[..., : batch.s], inner[..., batch.s :]
        for name, pages in batch.page_acts:
            u = torch.where(pages, ACTIVATIONS[name](u), u)
        if batch.gated:
            alpha = self._gate(q, u, g, block, draft.late)
            if self.traced is not None:
                self._trace(alpha, u, g, block)
            here = batch.slice(batch.table("present"), g, block)[:, self.row_of]
            weight = batch.spread(alpha * here, self.row_of) @ batch.owner.T
        else:
            weight = batch.slice(batch.fixed_pages, g, block)[:, self.row_of]
            if self.traced is not None:
                fixed = batch.slice(batch.table("fixed"), g, block)
                self._trace(fixed[:, self.row_of], u, g, block)
        return (weight * u).to(bank.dtype)

    def add_all(self, ys: Sequence[Tensor], draft: RawUnits, g: int, block: int) -> None:
        """The outputs of all layers of a group with their updates added."""
        bank = self.batch.bank
        if self.fused is not None:
            out = None
            if self.traced is not None:
                out = torch.empty(2, len(ys), len(draft.inner), self.batch.k, device=bank.device)
            row_of = self.row_of
            if self.fused.mix(ys, draft, self.batch, g, block, row_of=row_of, recorded=out):
                if self.traced is not None and out is not None:
                    self.traced.write(bank.layout.first(g, block), *out[:, :, self.traced.places])
                return
            self.fused = None
        units = self._weighted(draft, g, block)
        for j, y in enumerate(ys):
            self.add(y, units, g, block, j)

    def _gate(
        self, q: Tensor, u: Tensor, g: int, block: int, late: Tensor | None
    ) -> Float[Tensor, "m N k"]:
        batch, bank, row_of = self.batch, self.batch.bank, self.row_of
        by_adapter = partial(self._by_adapter, row_of)

        def row(name: str) -> Tensor:
            return batch.table(name)[row_of]

        def module(name: str) -> Tensor:
            return batch.slice(batch.table(name), g, block)[:, row_of]

        if (mask := batch.router_mask) is not None:
            q = q * mask[row_of]
        gram = bank.tensors.gram[g][block][:, : batch.high]
        score = by_adapter(torch.bmm(q, gram.transpose(1, 2)) * u) * module("present")
        score = score + module("fixed")
        if batch.surprised:
            mean, inverse = module("usual").unbind(-1)
            logs = log_norm(by_adapter(u.square()))
            z = ((logs - mean) * inverse).clamp(-MAX_Z, MAX_Z) * module("present")
            score = score + row("own")[:, None] * z
        if late is not None:
            score = score + late
        asks = row("asks")
        alpha = weigh(
            score,
            allowed=batch.slice(batch.allowed, g, block)[:, row_of],
            top=asks[:, 3:4] if batch.ranked else 0,
            raw=asks[:, 4:5] > 0 if batch.raw else False,
            bias=module("bias"),
        )
        return torch.where(asks[:, :1] == FIXED, module("fixed"), alpha)

    def _by_adapter(
        self, row_of: Int[Tensor, "n"], units: Float[Tensor, "m n R"]
    ) -> Float[Tensor, "m n k"]:
        """Sums over the units of each of the rows' own adapters."""
        batch = self.batch
        at = batch.numbers.clamp(max=batch.width - 1)[row_of][None]
        found = units @ batch.owner
        return found.gather(-1, at.expand(*found.shape[:-1], -1))

    def _trace(
        self, alpha: Float[Tensor, "m N k"], u: Float[Tensor, "m N R"], g: int, block: int
    ) -> None:
        """Trace weights and lengths of the weighted updates."""
        batch, traced = self.batch, self.traced
        assert traced is not None
        at = traced.places
        rows, alpha = self.row_of[at], alpha[:, at]
        here = batch.slice(batch.table("present"), g, block)[:, rows]
        lengths = self._by_adapter(rows, u[:, at].square()).sqrt() * alpha.abs() * here
        traced.write(batch.bank.layout.first(g, block), alpha, lengths)

    def _by_rows(self, x: Tensor, given: Input, g: int, block: int) -> np.ndarray:
        rows = self.rows
        assert rows is not None
        if not self.batch.late_by_rows:
            return rows.run(given, g, block, UNITS_STEP | WEIGHTS_STEP)
        units = rows.run(given, g, block, UNITS_STEP)
        late = self.late.of(x.reshape(-1, x.shape[-1]), g, block, units)
        return rows.run(given, g, block, WEIGHTS_STEP, late=late, units=units)

    # --- the layers' side ------------------------------------------------------------------------

    def update(self, units: np.ndarray, g: int, block: int, j: int) -> Update:
        """The update that a layer's kernel adds to its output."""
        assert self.rows is not None
        return self.rows.update(units, g, block, j)

    def add(self, y: Tensor, units: Tensor | np.ndarray, g: int, block: int, j: int) -> Tensor:
        """y [..., o] with the update of module j added, where the layer has no kernel."""
        bank = self.batch.bank
        if isinstance(units, np.ndarray):
            return self.update(units, g, block, j).added_to(y)
        B, flat = bank.tensors.B[g][j][block], y.view(-1, y.shape[-1])
        torch.addmm(flat, units[j].to(y.dtype), B[: self.batch.high].to(y.dtype), out=flat)
        return y

    def traces(self) -> list[Float[Tensor, "l 2 layer module k"]]:
        """Weights and contributions at the tokens of each traced row, float16 on the CPU."""
        return [] if self.traced is None else self.traced.each()


def _modules_first(inner: Float[Tensor, "n R m"], dtype: torch.dtype) -> Float[Tensor, "m n R"]:
    """Modules first, in the gate's dtype."""
    out = torch.empty(inner.shape[2], *inner.shape[:2], dtype=dtype, device=inner.device)
    return out.copy_(inner.permute(2, 0, 1))
