"""Contributions: each adapter's share of what adapters contributed to tokens.

    share_j = c_j / sum_i c_i,   c_j = the mean over all layers and modules of |alpha_j v_j| / |y|

Where an adapter lacks a module it did nothing, so its 0 there counts: c is how far it moved the
model's layers, whatever its weight. (A mean of *weights* that counts such a 0 would crown the
adapter with the most modules: weights are averaged over the modules that an adapter has.)
"""

import numpy as np
from jaxtyping import Bool, Float


def mean_contribution(contribution: Float[np.ndarray, "*t layer module k"]) -> np.ndarray:
    """c [*t, k] in float32: the mean over all layers and modules."""
    return _mean(contribution, np.ones(contribution.shape[-3:], np.bool_))


def mean_weights(
    weights: Float[np.ndarray, "*t layer module k"], present: Bool[np.ndarray, "*t layer module k"]
) -> np.ndarray:
    """[*t, k] in float32: the mean over the layers and modules that each adapter has, 0 where it
    has none."""
    return _mean(weights, present)


def shares_of(
    weights: Float[np.ndarray, "*t layer module k"],
    contribution: Float[np.ndarray, "*t layer module k"] | None,
    present: Bool[np.ndarray, "*t layer module k"] | None,
) -> np.ndarray:
    """[*t, k] in float32: each adapter's share, 0 where none contributed.

    Without contributions, from a file that is older than these, they come from the absolute mean
    weights; without `present`, an adapter has the modules in which it has any weight.
    """
    if contribution is not None:
        found = mean_contribution(contribution)
    else:
        found = np.abs(mean_weights(weights, weights != 0 if present is None else present))
    total = found.sum(-1, keepdims=True)
    return np.divide(found, total, out=np.zeros_like(found), where=total > 0)


def _mean(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    total = np.where(counts, values, 0).sum((-3, -2), dtype=np.float32)
    return total / np.maximum(counts.sum((-3, -2)), 1).astype(np.float32)
