"""Weights and updates for the kernels' tests, and what they give in float64."""

from collections.abc import Sequence

import numpy as np
import torch
from bitsandbytes.functional import dequantize_4bit, quantize_4bit

from ramole_core.kernels.compiled import view
from ramole_core.kernels.narrow import narrowed_to_grid, on_grid, rounded_to_bytes
from ramole_core.kernels.ways import VECTORS
from ramole_core.kernels.weight import Input, UnitRows, Update, Weight, way_here

FLOATS, HALVES = torch.float32, torch.bfloat16


class Product:
    """A weight [o, i] of one kind, 200 rows of input, and an update for each."""

    N = 200

    def __init__(
        self,
        kind: str | torch.dtype,
        o: int,
        i: int,
        *,
        bias: bool,
        half: bool = False,
        way: str | None = None,
    ):
        """`way`: in place of this CPU's."""
        pick = torch.Generator().manual_seed(o * i)
        self.dtype = HALVES if half else FLOATS
        W = torch.randn(o, i, generator=pick)
        b = torch.randn(o, generator=pick).to(self.dtype) if bias else None
        self._way = way
        rounds = half and (way or way_here()) != VECTORS
        if kind == "nf4":
            codes, state = quantize_4bit(W, blocksize=64, quant_type="nf4")
            scales = state.absmax.reshape(o, -1)
            self.weight = Weight(codes, (o, i), scales=scales, bias=b)
            W = dequantize_4bit(codes, state)
            self.W = (W.bfloat16() if rounds else W).double()
        elif kind == "int4":
            codes, grid = narrowed_to_grid(W)
            self.weight = Weight(codes, (o, i), scales=grid, bias=b)
            W = on_grid(codes, grid)
            self.W = (W.bfloat16() if rounds else W).double()
        elif kind == "int8":
            numbers, scales = rounded_to_bytes(W)
            self.weight = Weight(numbers, (o, i), scales=scales, bias=b)
            self.W = numbers.double() * scales.double()[:, None]
        else:
            self.weight = Weight(W.to(kind), (o, i), bias=b)
            self.W = W.to(kind).double()
        self.bias = torch.zeros(o).double() if b is None else b.double()
        self.x = torch.randn(self.N, i, generator=pick).to(self.dtype)
        # rows 0-5 have 0-6 units; row 3 none; runs of one to nine tokens, rows come back
        self.counts = np.array([[3, 1], [6, 2], [1, 1], [0, 0], [4, 1], [5, 2]], np.int32)
        runs = zip((0, 1, 2, 3, 1, 4, 5, 0, 2), (1, 9, 2, 3, 4, 1, 5, 3, 7), strict=True)
        once = [row for row, count in runs for _ in range(count)]
        self.row_of = np.array((once * self.N)[: self.N], np.int32)
        self.pages = torch.randint(11, (6, 6), generator=pick, dtype=torch.int32).numpy()
        self.units = torch.randn(self.N, 8, generator=pick).numpy()
        self.B = torch.randn(11, o, generator=pick).to(self.dtype)

    def update(self, at: Sequence[int]) -> Update:
        units, row_of = np.ascontiguousarray(self.units[at]), self.row_of[at]
        return Update(units, UnitRows(self.pages, self.counts, row_of), view(self.B))

    def run(self, at: Sequence[int], *, updated: bool = False) -> torch.Tensor:
        at = list(at)
        update = self.update(at) if updated else None
        return self.weight.multiply(Input(self.x[at]), update, way=self._way)

    def slowly(self, *, updated: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
        """y in float64, and the most that rounding may change."""
        x = self.x.double()
        y, size = x @ self.W.T + self.bias, x.abs() @ self.W.abs().T + self.bias.abs()
        for n, row in enumerate(self.row_of):
            for c in range(self.counts[row, 0] if updated else 0):
                more = float(self.units[n, c]) * self.B[self.pages[row, c]].double()
                y[n], size[n] = y[n] + more, size[n] + more.abs()
        return y, size * 1e-6 + (y.abs() * 2**-8 if self.dtype == HALVES else 0)
