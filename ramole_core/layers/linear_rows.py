"""W x of all rows whose gate reads a module's input, in one kernel call."""

from collections.abc import Container, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from ramole_core.composition import Gate
from ramole_core.kernels import linear as words_of
from ramole_core.kernels.call_args import WORDS
from ramole_core.kernels.dots import COLUMNS
from ramole_core.kernels.linear import SCORE
from ramole_core.kernels.record_hook import WATCHING
from ramole_core.kernels.weight import Input
from ramole_core.kernels.widen import widened
from ramole_core.layers.batch_mix import RowMix

RUN = 32
"""Most tokens of a tile."""
_WIDE = WeakIdKeyDictionary()
"""The W of gates as the kernel reads them, as long as a gate has them."""


def wide_rows(W: Tensor) -> Tensor:
    """W [k, i] in float32 and the order of `dots`, k rounded up; made once for each tensor."""
    found = _WIDE.get(W)
    if found is None:
        k, i = W.shape
        whole = torch.zeros(-(-k // COLUMNS) * COLUMNS, i)
        whole[:k] = W
        found = _WIDE[W] = widened(whole)
    return found


class LinearRows:
    """W x in one forward; the tokens of row n are `counts[n]`, side by side."""

    def __init__(self, rows: Sequence[RowMix], late: Sequence[int], counts: Sequence[int], k: int):
        """Of the rows of a batch those among `late` that it can tell; `k`: the most adapters of a
        row."""
        self._mixes = rows
        self.rows = [n for n in late if _reads_inputs_alone(rows[n].gate)]
        """Those whose gates it tells."""
        self._shared = {n: rows[n].here.any(1).tolist() for n in self.rows}
        """Whether anybody has the module."""
        ends = np.cumsum(counts)
        self._at = [slice(int(e - c), int(e)) for e, c in zip(ends, counts, strict=True)]
        runs = [
            (row, start, min(RUN, end - start))
            for row, (end, count) in enumerate(zip(ends, counts, strict=True))
            for start in range(end - count, end, RUN)
        ]
        self._runs = np.array(runs, np.int32).reshape(-1, 3)
        self._n, self._width = sum(counts), -(-k // COLUMNS) * COLUMNS
        self._weights = np.zeros(len(counts), np.int64)
        self._sizes = np.zeros(len(counts), np.int64)
        w = self._words = np.zeros(WORDS, np.int64)
        w[words_of.RUNS], w[words_of.OUT_ROW] = self._runs.ctypes.data, self._width
        w[words_of.WEIGHTS] = self._weights.ctypes.data
        w[words_of.SIZES] = self._sizes.ctypes.data

    def write(
        self,
        late: Float[Tensor, "N k"],
        path: str,
        place: int,
        given: Input,
        *,
        but: Container[int] = (),
    ) -> dict[int, Exception]:
        """Write W x into `late` at the module of this path and place, for its rows `but` those; the
        faults of rows whose scores are not finite, which stay 0."""
        tables = []
        for n in self.rows:
            row = self._mixes[n]
            W = row.gate.linear.get(path) if row.gate and row.gate.linear else None
            if W is not None and n not in but and self._shared[n][place]:
                tables.append((n, W))
        if not tables:
            return {}
        found = torch.from_numpy(self.scores(given, tables))[:, : late.shape[-1]]
        faults: dict[int, Exception] = {}
        if not bool(torch.isfinite(found).all()):
            for n, _ in tables:
                if not bool(torch.isfinite(found[self._at[n]]).all()):
                    found[self._at[n]] = 0
                    faults[n] = ValueError("scores that are not finite")
        for n, _ in tables:
            late[self._at[n]] = found[self._at[n]].to(late.dtype)
        return faults

    def scores(self, given: Input, tables: Sequence[tuple[int, Tensor]]) -> np.ndarray:
        """[N, k rounded up] float32; `tables` are the rows that have a W here, and theirs. Tokens
        of other rows have 0."""
        self._weights[:] = 0
        wide = [(n, W.shape[0], wide_rows(W)) for n, W in tables]
        for n, k, table in wide:
            self._weights[n], self._sizes[n] = table.data_ptr(), k
        x, w = given.wide, self._words
        out = np.zeros((self._n, self._width), np.float32)
        w[words_of.X], w[words_of.X_ROW] = x.data_ptr(), x.shape[-1]
        w[words_of.OUT] = out.ctypes.data
        if (watcher := WATCHING.one) is not None:
            watcher.keep(self, given, wide, out)
        SCORE.run(w, len(self._runs))
        return out


def _reads_inputs_alone(gate: Gate | None) -> bool:
    """Whether W x of each module's own input, in float32, is the only late term."""
    if gate is None or gate.per != "module" or gate.score is not None or not gate.linear:
        return False
    return all(W.dtype == torch.float32 for W in gate.linear.values())
