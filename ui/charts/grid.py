"""A run's contributions or weights as one array over its answer, by token, word or sentence.

What an adapter lacks is nan here: a blank in every picture, never a 0.
"""

from dataclasses import dataclass

import numpy as np

from .run import CONTRIBUTION, EVEN, WEIGHT, Run
from .spans import Spans, spans_of

NOBODY_THERE, NOBODY_LEADS = -2, -1


@dataclass(frozen=True)
class Grid:
    """Values of one run, ready to be cut into pictures."""

    values: np.ndarray
    """[n, layer, module, k] float32, nan where the adapter lacks the module; n tokens, words or
    sentences."""
    what: str
    per: str
    spans: Spans
    experts: tuple[str, ...]
    places: tuple[int, ...]
    """The experts' numbers for letter and colour."""
    layers: tuple[int, ...]
    modules: tuple[str, ...]

    @property
    def over_modules(self) -> np.ndarray:
        """[n, layer, k]: the mean over the modules of each layer. As everywhere, a contribution is
        0 in a module that the adapter lacks, and a weight does not count there."""
        return average(self.values, 2, absent_counts=self.what == CONTRIBUTION)


def grid_of(run: Run, *, what: str = CONTRIBUTION, per: str = "token") -> Grid | None:
    """The run's contributions or weights; None where no adapter was at work. An effect has no
    layers, so that contributions stand for it."""
    trace = run.answer.trace
    if trace is None or not run.experts or not run.gates.size:
        return None
    weighed = what == WEIGHT
    found = run.gates if weighed else run.contribution
    values = np.where(run.present, found, np.nan).astype(np.float32)
    spans = spans_of(run.pieces[: len(values)], per)
    return Grid(
        values if per == "token" else grouped(values, spans),
        what=WEIGHT if weighed else CONTRIBUTION,
        per=per,
        spans=spans,
        experts=tuple(run.experts),
        places=tuple(run.places),
        layers=tuple(trace.layers),
        modules=tuple(trace.modules),
    )


def grouped(values: np.ndarray, spans: Spans) -> np.ndarray:
    """[tokens, ...] -> [groups, ...]: the mean over the tokens of each group, without nan."""
    starts = [*spans.starts, len(values)]
    each = (slice(low, high) for low, high in zip(starts, starts[1:], strict=False))
    return np.stack([average(values[tokens], 0) for tokens in each])


def average(values: np.ndarray, axis: int, *, absent_counts: bool = False) -> np.ndarray:
    """The mean of what is not nan, nan where all is; `absent_counts`: a nan beside numbers is 0."""
    there = np.isfinite(values)
    count = there.sum(axis)
    size = np.full_like(count, values.shape[axis]) if absent_counts else np.maximum(count, 1)
    mean = np.where(there, values, 0).sum(axis, dtype=np.float32) / size
    return np.where(count > 0, mean, np.nan).astype(np.float32)


def leaders(cells: np.ndarray) -> np.ndarray:
    """[..., k] -> [...]: the expert with the largest value (by size, where some are negative),
    NOBODY_LEADS where two share the lead or all are 0, NOBODY_THERE where all are nan."""
    sizes = np.where(np.isfinite(cells), np.abs(cells), 0).astype(np.float64)
    total = sizes.sum(-1, keepdims=True)
    shares = np.divide(sizes, total, out=np.zeros_like(sizes), where=total > 0)
    order = np.sort(shares, -1)
    second = order[..., -2] if shares.shape[-1] > 1 else np.zeros(shares.shape[:-1])
    clear = (order[..., -1] - second >= EVEN) & (total[..., 0] > 0)
    found = np.where(clear, shares.argmax(-1), NOBODY_LEADS)
    return np.where(np.isfinite(cells).any(-1), found, NOBODY_THERE)
