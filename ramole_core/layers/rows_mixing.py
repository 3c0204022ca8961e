"""Mixing by rows: the kernels' arguments and results for a batch."""

from collections.abc import Sequence
from dataclasses import fields

import numpy as np
import torch
from torch import Tensor

from ramole_core.kernels import input_scores as words_of
from ramole_core.kernels.call_args import WATCHING, WORDS
from ramole_core.kernels.dots import COLUMNS
from ramole_core.kernels.gate import INPUTS
from ramole_core.kernels.input_scores import SCORE_SCOPE, WEIGHTS_STEP, split_place
from ramole_core.kernels.matrix_unit import DEPTH, MATRIX
from ramole_core.kernels.mixing import MIX, RUN
from ramole_core.kernels.vectors import paired
from ramole_core.kernels.ways import TILES
from ramole_core.kernels.weight import Input, UnitRows, Update, way_here
from ramole_core.layers.batch_mix import BatchMix
from ramole_core.layers.gate_softmax import SCOPE_FORMS
from ramole_core.layers.traced import Traced


class RowsMixing:
    """Mixing in one forward; the tokens of row n are `counts[n]`, side by side."""

    def __init__(self, batch: BatchMix, counts: Sequence[int], *, traced: Traced | None = None):
        """`traced` takes weights and lengths of its rows."""
        self._batch, self._traced = batch, traced
        self._told = np.zeros(max(batch.b, 1), np.bool_)
        self._told[[] if traced is None else list(traced.rows)] = True
        tables, bank = batch.tables, batch.bank
        self.n = sum(counts)
        row_of = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
        self._rows = UnitRows(tables.pages, tables.counts, row_of)
        ends = np.cumsum(counts)
        runs = [
            (row, start, min(RUN, end - start))
            for row, (end, count) in enumerate(zip(ends, counts, strict=True))
            for start in range(end - count, end, RUN)
        ]
        self._reads_inputs = INPUTS in tables.input_forms
        self._runs = np.array(runs, np.int32).reshape(-1, 3)
        most = tables.pages.shape[1]
        self._splits = bank.dtype == torch.bfloat16 and way_here() == TILES
        whole = DEPTH if self._splits else COLUMNS
        self._width = -(-most // whole) * whole
        w = self._words = np.zeros(WORDS, np.int64)
        w[words_of.N], w[words_of.A_HALF] = self.n, bank.dtype == torch.bfloat16
        w[words_of.S], w[words_of.RUNS] = bank.tensors.s, self._runs.ctypes.data
        w[words_of.UNITS_ROW], w[words_of.K] = self._width, batch.k
        w[words_of.ROWS], w[words_of.PAGES_ROW] = batch.b, most
        w[words_of.TRACED], w[words_of.SPLITS] = self._told.ctypes.data, self._splits
        self._scopes = [
            (form, bank.layout.sites.scopes[per])
            for per, form in SCOPE_FORMS.items()
            if form in tables.input_forms
        ]
        if self._scopes:
            columns = -(-batch.k // COLUMNS) * COLUMNS
            self._scope_scores = np.zeros((len(SCOPE_FORMS), self.n, columns), np.float32)
            w[words_of.SCOPES] = self._scope_scores.ctypes.data
        for table in fields(tables):  # the word of a table is called as the table is
            w[getattr(words_of, table.name.upper())] = getattr(tables, table.name).ctypes.data

    def enter(self, path: str, x: Tensor) -> None:
        """Enter a block or parent: score the gates that read its input."""
        for form, scopes in self._scopes:
            if (module := scopes.get(path)) is not None:
                wide, w = Input(x).wide, self._words
                w[words_of.X_WIDE], w[words_of.X_ROW] = wide.data_ptr(), wide.shape[1]
                w[words_of.FIRST], w[words_of.STEPS] = module, form
                if (watcher := WATCHING.one) is not None:
                    watcher.keep(self, wide)
                SCORE_SCOPE.run(w, len(self._runs))

    def run(
        self,
        given: Input,
        g: int,
        block: int,
        steps: int,
        *,
        late: Tensor | None = None,
        units: np.ndarray | None = None,
    ) -> np.ndarray:
        """Units [m, N, R] of a layer's input [N, i], weighted where `steps` says so.

        `units` are those of the first step, where only the second is left to do.
        """
        bank = self._batch.bank
        A, gram, _ = bank.tensors.views(g, block)
        group = bank.layout.groups[g]
        m = group.m
        if units is None:
            units = self._room(m)
        first = bank.layout.first(g, block)
        told = None if self._traced is None else self._traced.room(first, m)
        scores = None if late is None else late.float().contiguous()
        w = self._words
        halves = MATRIX and given.x.dtype == bank.dtype == torch.bfloat16 and group.i % DEPTH == 0
        x = given.x if halves else given.wide
        w[words_of.X_WIDE] = given.wide.data_ptr() if self._reads_inputs else 0
        w[words_of.X], w[words_of.X_HALF], w[words_of.X_ROW] = x.data_ptr(), halves, paired(group.i)
        w[words_of.MODULES], w[words_of.I] = m, group.i
        w[words_of.A], w[words_of.GRAM] = A.ctypes.data, gram.ctypes.data
        w[words_of.BANK_PAGES] = gram.shape[1]
        w[words_of.FIRST] = first
        w[words_of.UNITS] = units.ctypes.data
        w[words_of.ALPHA] = 0 if told is None else told[0].ctypes.data
        w[words_of.NORMS] = 0 if told is None else told[1].ctypes.data
        w[words_of.LATE] = 0 if scores is None else scores.data_ptr()
        w[words_of.STEPS] = steps
        if (watcher := WATCHING.one) is not None:
            watcher.keep(self, given, units, scores)
        MIX.run(w, len(self._runs) * m)
        if self._traced is not None and told is not None and steps & WEIGHTS_STEP:
            self._traced.take(first, told)
        return units

    def _room(self, m: int) -> np.ndarray:
        """Units [m, N, R]: a view of memory that goes on behind them where they are split too."""
        size = m * self.n * self._width
        whole = split_place(m, self.n, self._width, m) if self._splits else size
        return np.empty(whole, np.float32)[:size].reshape(m, self.n, self._width)

    def update(self, units: np.ndarray, g: int, block: int, j: int) -> Update:
        """The update of module j to its layer's output."""
        B = self._batch.bank.tensors.views(g, block)[2][j]
        place = split_place(len(units), self.n, self._width, j)
        split = units.ctypes.data + 4 * place if self._splits else 0
        return Update(units[j], self._rows, B, split)
