"""Fit the retriever's metric: no steps, one eigendecomposition.

What differs between two inputs of one task is noise to the retriever. With e the encoder, tuned or
not, and the scatter of the tuned
tasks' inputs around their means,

    S = mean_t mean_i (e(x_ti) - mean_i e(x_ti)) (...)',   S_l = (1 - l) S + l tr(S)/d I,

M = S_l^(-1/2) makes that noise alike in every direction (within-class covariance normalisation,
Hatch et al. 2006). It holds nothing of the tasks' means, so tasks that were not tuned on gain too;
and twins do no harm, as no two tasks are pushed apart. The words' document frequencies come from
the same inputs.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float32, Float64

from ramole_core.errors import RamoleError
from ramole_core.retrieval.metric import Metric, inverse_frequencies
from ramole_core.training.recipe import MetricRecipe

Dense = Callable[[Sequence[str]], Float32[np.ndarray, "n d"]]
"""The encoder's own vectors, of unit length."""
MAX_RATIO = 1e8
"""Largest ratio of the mean variance to the least one, so that factors stay within float16."""


def fit_metric(dense: Dense, texts: Mapping[str, Sequence[str]], recipe: MetricRecipe) -> Metric:
    """Fit on example inputs by task. Raises RamoleError where no task has two, or where they vary
    too little for this shrink."""
    usable = [list(rows[: recipe.rows]) for rows in texts.values() if len(set(rows)) > 1]
    if not usable:
        raise RamoleError("No task has two inputs, so none shows how inputs vary; name one.")
    groups = [dense(rows) for rows in usable]
    scatter = np.mean([np.cov(group, rowvar=False, bias=True) for group in groups], axis=0)
    matrix = _root_of_inverse(scatter, recipe.shrink)
    idf = inverse_frequencies(text for rows in usable for text in rows)
    return Metric(matrix.astype(np.float32), idf, recipe.share, recipe.words)


def _root_of_inverse(scatter: Float64[np.ndarray, "d d"], shrink: float) -> np.ndarray:
    """S_l^(-1/2), scaled. Raises RamoleError where there is none in finite numbers."""
    d, mean = len(scatter), np.trace(scatter) / len(scatter)
    if not np.isfinite(scatter).all():
        raise RamoleError(
            "The encoder's vectors of the inputs are not finite numbers; lower --learning-rate."
        )
    if mean <= 0:
        raise RamoleError(
            "To the encoder all inputs of a task have the same vector, so none shows how inputs "
            "vary; give inputs that differ more."
        )
    values, vectors = np.linalg.eigh((1 - shrink) * scatter + shrink * mean * np.eye(d))
    if values.min() * MAX_RATIO < mean:
        raise RamoleError(
            f"The inputs do not vary in each of the {d} dimensions of the encoder's vectors, which "
            f"only --shrink makes up for, and --shrink is {shrink:g}; give a larger one, such as "
            "0.1, or many more inputs."
        )
    return (vectors / np.sqrt(values / mean)) @ vectors.T
