"""The gate of one token at one module: from units u = A x to scores, and from these to weights.

`units` [R] are those of all the row's pages, `slots` [R] the place of each one's adapter among the
row's own, `present` [k] which of them have the module.
"""

import math

import numpy as np

from ramole_core.composition.activation import MAX_Z, TINY
from ramole_core.kernels.compiled import kernel

ALIGNED, LENGTH, LOUDEST, LINEAR, INPUTS, BLOCK_INPUTS, PARENT_INPUTS = range(1, 8)
"""The forms of `decision.UnitScore`, and W x, x being the module's input or that of its block or
parent; 0: a row has none of them."""
_TINY, _MAX_Z, _NO_LENGTH = np.float32(TINY), np.float32(MAX_Z), np.float32(1e-30)


@kernel()
def activation_z(score, usual, present, own, k):
    """score [k]: the activation z-score term of each adapter, from its |v|^2.

    |v|^2 is the sum of squared units, because B's columns are orthonormal (`units.pack_units`).
    """
    for c in range(k):
        if present[c] == 0:
            score[c] = np.float32(0)
            continue
        z = (np.float32(0.5) * np.log(score[c] + _TINY) - usual[c, 0]) * usual[c, 1]
        score[c] = own * min(max(z, -_MAX_Z), _MAX_Z)


@kernel()
def score_units(form, top, table, units, slots, present, R, k, score, aside):
    """score [k] += the score by units alone of this form, whose scale the table has."""
    own, length = aside[0], aside[1]
    for c in range(k):
        own[c] = length[c] = np.float32(0)
    total = np.float32(0)
    for c in range(R):
        if slots[c] < k and present[slots[c]] != 0:
            length[slots[c]] += units[c] * units[c]
            total += units[c] * units[c]
            if form == LINEAR:
                for other in range(k):
                    own[other] += table[other, c] * units[c]
            else:
                own[slots[c]] += table[0, c] * units[c]
    total = np.sqrt(max(total, _NO_LENGTH))
    for c in range(k):
        if form == LINEAR:
            score[c] += own[c] / total
        elif form == ALIGNED:
            score[c] += abs(own[c])
        elif form == LENGTH:
            score[c] += table[0, 0] * np.sqrt(max(length[c], _NO_LENGTH))
        else:
            better = 0
            for other in range(k):
                one, two = abs(own[other]), abs(own[c])
                if one > two or (one == two and other < c):
                    better += 1
            kept = better < top
            score[c] += np.sqrt(max(length[c], _NO_LENGTH)) if kept else np.float32(-1)


@kernel()
def gate_weights(score, present, weight, k, asks):
    """Softmax over the best unmasked adapters, or their scores; 0 for the others. The gate may mask
    adapters that lack the module."""
    keep, top, raw = asks[0] == 2, asks[3], asks[4] != 0
    chosen = k if top == 0 else min(top, k)
    for c in range(k):
        weight[c] = np.float32(0) if present[c] != 0 or keep else np.float32(-1)
    if chosen < k:  # mark all but the `chosen` best; of equal ones the first is the better
        for c in range(k):
            if weight[c] == 0:
                better = 0
                for d in range(k):
                    if (present[d] != 0 or keep) and (
                        score[d] > score[c] or (score[d] == score[c] and d < c)
                    ):
                        better += 1
                if better >= chosen:
                    weight[c] = np.float32(-1)
    most = np.float32(-np.inf)
    for c in range(k):
        if weight[c] == 0 and score[c] > most:
            most = score[c]
    total = np.float32(0)
    for c in range(k):
        if weight[c] < 0:
            weight[c] = np.float32(0)
        elif raw:
            weight[c] = score[c]
        else:
            weight[c] = np.exp(score[c] - most)
        total += weight[c]
    if not raw:
        for c in range(k):
            weight[c] = weight[c] / total if total > 0 else np.float32(0)


@kernel()
def weigh_units(units, slots, acts, present, R, k, weight):
    """The units times their weights, 0 where an adapter lacks the module; a bypass's activated."""
    for c in range(R):
        if acts[c] != 0:
            units[c] = _activate(units[c], acts[c])
        if slots[c] < k:
            units[c] *= weight[slots[c]] if present[slots[c]] != 0 else np.float32(0)


@kernel()
def _activate(u, act):
    """The activations of `batch_mix.ACTIVATIONS`: gelu as torch's own, relu."""
    if act == 1:
        full = np.float64(u)
        return np.float32(0.5 * full * (1.0 + math.erf(full * 0.7071067811865476)))
    return max(u, np.float32(0))


@kernel()
def update_lengths(units, slots, R, norms):
    """norms [k]: |alpha v| of each adapter, from its weighted units as in `activation_z`."""
    for c in range(norms.shape[0]):
        norms[c] = 0  # a step that is replayed finds those of the step before
    for c in range(R):
        if slots[c] < norms.shape[0]:
            norms[slots[c]] += units[c] * units[c]
    for c in range(norms.shape[0]):
        norms[c] = np.sqrt(norms[c])
