"""The table of a score by units alone, in the order in which the kernel has a row's units."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32

from ramole_core.composition import UnitScore
from ramole_core.kernels.mixing import ALIGNED, LENGTH, LINEAR, LOUDEST

FORMS = {"aligned": ALIGNED, "length": LENGTH, "loudest": LOUDEST, "linear": LINEAR}


def unit_table(
    score: UnitScore, paths: Sequence[str], sizes: Sequence[int]
) -> Float32[np.ndarray, "module c R"]:
    """T of all adapters side by side at each module, times the scale; c is k where the form is
    `linear`, else 1. `sizes`: the rank units of each adapter in the bank, R together."""
    wide, whole = (len(sizes) if score.form == "linear" else 1), sum(sizes)
    made = np.zeros((len(paths), wide, whole), np.float32)
    if score.form == "length":
        made[:] = score.scale
        return made
    starts = np.cumsum([0, *sizes])
    for place, path in enumerate(paths):
        for start, T in zip(starts, score.tables[path], strict=False):
            made[place, :, start : start + T.shape[1]] = T.detach().float().cpu().numpy()
    if score.form == "aligned":
        made *= np.float32(score.scale)
    return made
