"""The scores that a gate computes in the forward, beside its tables: W x, or a method's own.

Each row's are computed by themselves, so that no request depends on another, and a fault in one
ends that request alone.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ramole_core.composition import Signal
from ramole_core.layers.batch_mix import BatchMix
from ramole_core.layers.gate_softmax import in_tiles, late_scores, module_signal


class LateScores:
    """The late scores of all rows in one forward."""

    def __init__(
        self,
        batch: BatchMix,
        counts: Sequence[int],
        starts: Sequence[int],
        *,
        by_rows: bool,
        within: "tuple[LateScores, Tensor] | None" = None,
    ):
        """`counts`: tokens of each row, in order; `starts`: the place of its first one in its own
        request. `by_rows`: the kernel computes what it can. `within`: the scores of the forward
        that this one is a part of, and its tokens there; None: it is whole."""
        self._batch, self._counts, self._starts = batch, counts, starts
        self.by_rows, self._within = by_rows, within
        self._rows = batch.late_by_rows if by_rows else batch.late
        ends = np.cumsum(counts)
        self._at = [slice(int(e - c), int(e)) for e, c in zip(ends, counts, strict=True)]
        self._shared: dict[tuple[int, str], Tensor] = {}
        """By row and block or parent: the scores that its modules share."""
        self.faults: dict[int, Exception] = {} if within is None else within[0].faults
        """By row: the error of a method's own score; the row's weights are invalid."""

    def enter(self, path: str, x: Float[Tensor, "*b _"]) -> None:
        """Enter a block or parent: score the gates that read its input."""
        x = x.reshape(-1, x.shape[-1])
        for n in self._rows:
            here = path in self._batch.scopes.get(n, ())
            if here and n not in self.faults and self._counts[n]:
                self._shared[n, path] = self._try(n, Signal(path, x[self._at[n]]))

    def of(
        self, x: Float[Tensor, "N i"], g: int, block: int, units: np.ndarray | None = None
    ) -> Float[Tensor, "m N k"]:
        """The scores of a group in one block; `units` [m, N, R] are those of the rows' pages,
        where the kernel has made them."""
        batch, bank = self._batch, self._batch.bank
        paths = bank.layout.groups[g].paths[block]
        late = x.new_zeros(len(paths), len(x), batch.k, dtype=bank.wide)
        first = bank.layout.first(g, block)
        for n in self._rows:
            row, here = batch.rows[n], self._at[n]
            k = len(row.slots)
            if n in self.faults or row.gate is None or not self._counts[n]:
                continue
            for j, path in enumerate(paths):
                if row.gate.per != "module":
                    if (scores := self._shared_of(n, row.gate.scope(path))) is not None:
                        late[j, here, :k] = scores
                elif bool(row.present[first + j].any()):
                    signal = Signal(path, x[here])
                    if row.gate.score is not None:  # W x reads nothing else
                        u = self._units_of(n, x[here], g, block, j, units)
                        signal = module_signal(path, x[here], u)
                    late[j, here, :k] = self._try(n, signal)
        return late

    def _shared_of(self, n: int, scope: str) -> Float[Tensor, "l k"] | None:
        """The scores of row n that all modules of a block or parent share."""
        found = self._shared.get((n, scope))
        if found is not None or self._within is None:
            return found
        whole, tokens = self._within
        found = whole._shared_of(n, scope)
        return None if found is None else found[tokens[self._at[n]] - whole._at[n].start]

    def _units_of(
        self, n: int, x: Tensor, g: int, block: int, j: int, units: np.ndarray | None
    ) -> list[Float[Tensor, "l _"]]:
        """x A^T of each of the row's adapters at a module; r = 0 where it lacks that."""
        row, bank = self._batch.rows[n], self._batch.bank
        first = bank.layout.first(g, block)
        here = row.present[first + j].tolist()
        if units is None:
            mine = x.to(bank.dtype)
            pages = [slot.pages if slot.present[first + j] else [] for slot in row.slots]
            every = [mine @ bank.tensors.units_of(one, g, block, j).T for one in pages]
        else:
            sizes = [len(slot.pages) for slot in row.slots]
            whole = torch.from_numpy(units[j, self._at[n], : sum(sizes)].copy())
            every = list(whole.split(sizes, dim=-1))
        return [u if is_here else u[:, :0] for u, is_here in zip(every, here, strict=True)]

    def _try(self, n: int, signal: Signal) -> Float[Tensor, "l k"]:
        """Compute a row's own scores; 0 from its first fault on, which is kept."""
        row = self._batch.rows[n]
        gate, k = row.gate, len(row.slots)
        assert gate is not None
        try:
            if not self.by_rows:
                return late_scores(gate, signal, k)
            return in_tiles(lambda part: late_scores(gate, part, k), signal, self._starts[n])
        except Exception as error:
            self.faults[n] = error
            return signal.x.new_zeros(self._counts[n], k, dtype=self._batch.bank.wide)
