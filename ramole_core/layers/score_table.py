"""The table of a gate's own score, as the mixing kernel reads it."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from ramole_core.composition import Gate, UnitScore
from ramole_core.kernels.dots import COLUMNS
from ramole_core.kernels.gate import ALIGNED, INPUTS, LENGTH, LINEAR, LOUDEST
from ramole_core.kernels.widen import widened

FORMS = {"aligned": ALIGNED, "length": LENGTH, "loudest": LOUDEST, "linear": LINEAR}
_WIDE = WeakIdKeyDictionary()
"""The W of gates as the kernel reads them, as long as a gate has them."""


def form_of(gate: Gate) -> int:
    """The form in which the kernel computes the gate's own score; 0: PyTorch computes it, or there
    is none."""
    if isinstance(gate.score, UnitScore):
        return FORMS[gate.score.form] if gate.linear is None else 0
    if gate.per != "module" or gate.score is not None or not gate.linear:
        return 0
    return INPUTS if all(W.dtype == torch.float32 for W in gate.linear.values()) else 0


def score_table(
    gate: Gate, paths: Sequence[str], sizes: Sequence[int], here: Bool[Tensor, "module k"]
) -> np.ndarray | None:
    """The table of the gate's own score; None where the kernel computes none.

    Of a score by units [module, c, R] float32: T of all adapters side by side, times the scale; c
    is k where the form is `linear`, else 1. `sizes`: the rank units of each adapter in the bank, R
    together. Of W x [module] int64: the address of each W, 0 where none is `here`; the gate keeps
    what lies there.
    """
    form, score = form_of(gate), gate.score
    if form == INPUTS:
        assert gate.linear is not None
        rows = zip(paths, here.any(1).tolist(), strict=True)
        every = [gate.linear.get(path) if anybody else None for path, anybody in rows]
        found = [0 if W is None else wide_rows(W).data_ptr() for W in every]
        return np.array(found, np.int64)
    if not form or not isinstance(score, UnitScore):
        return None
    made = np.zeros((len(paths), len(sizes) if form == LINEAR else 1, sum(sizes)), np.float32)
    if form == LENGTH:
        made[:] = score.scale
        return made
    starts = np.cumsum([0, *sizes])
    for place, path in enumerate(paths):
        for start, T in zip(starts, score.tables[path], strict=False):
            made[place, :, start : start + T.shape[1]] = T.detach().float().cpu().numpy()
    if form == ALIGNED:
        made *= np.float32(score.scale)
    return made


def wide_rows(W: Tensor) -> Tensor:
    """W [k, i] in float32 and the order of `dots`, k rounded up; made once for each tensor."""
    found = _WIDE.get(W)
    if found is None:
        k, i = W.shape
        whole = torch.zeros(-(-k // COLUMNS) * COLUMNS, i)
        whole[:k] = W
        found = _WIDE[W] = widened(whole)
    return found
