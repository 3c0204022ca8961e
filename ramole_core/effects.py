"""Effects: each adapter's additive part of a token's log probability, in nats.

    v(S)  = log p(token | prompt, answer so far, adapters S)
    phi_i = sum over S without i of  |S|! (k - |S| - 1)! / k!  (v(S + i) - v(S))
    sum over i of phi_i = v(all) - v(none)

The Shapley value of a game of k players (L. S. Shapley, A value for n-person games, 1953; for
models: Lundberg and Lee, arXiv 1705.07874, eq. 8). phi_i is the effect of adapter i: positive where
it made the token likelier. v(all) is the log probability under the distribution of the run
(temperature 1, before top_p), v(none) the base's for the same tokens. How the others' v are
measured stands in `engine/effect_reading.py`.

With more than MAX_SHAPLEY adapters an effect is phi_i = v(all) - v(all without i), "leave one out",
and effects do not add up.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from math import factorial
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Float

if TYPE_CHECKING:
    from ramole_core.answer import Generation

MAX_SHAPLEY = 4
"""Adapters whose effects are Shapley values; 2^k - 2 subsets have to be read."""
CHANGED = 0.2
"""Nats: an adapter that made a token exp(0.2) = 1.2 times likelier changed something. Below, the
base would have said it nearly as readily; logits in bfloat16 are off by half of this."""
Subset = frozenset[int]
"""Adapters by their number."""
Rule = Literal["shapley", "leave_one_out"]


def rule_of(k: int) -> Rule:
    """Return the rule for the effects of k adapters."""
    return "shapley" if k <= MAX_SHAPLEY else "leave_one_out"


def subsets_of(k: int) -> tuple[Subset, ...]:
    """The subsets of k adapters whose v is needed, beside all and none of them."""
    everybody = range(k)
    sizes = range(1, k) if k <= MAX_SHAPLEY else (k - 1,)
    return tuple(frozenset(one) for size in sizes for one in combinations(everybody, size))


def effects_of(values: Mapping[Subset, Float[np.ndarray, "T"]], k: int) -> np.ndarray:
    """The effects [T, k], float32; `values` has v of all of `subsets_of(k)`, of all and of none."""
    everybody = frozenset(range(k))
    v = {subset: np.asarray(value, np.float64) for subset, value in values.items()}
    found = np.zeros((len(v[everybody]), k), np.float64)
    for i in everybody:
        if k > MAX_SHAPLEY:
            found[:, i] = v[everybody] - v[everybody - {i}]
            continue
        for subset in [one for one in v if i not in one]:
            size = len(subset)
            share = factorial(size) * factorial(k - size - 1) / factorial(k)
            found[:, i] += share * (v[subset | {i}] - v[subset])
    return found.astype(np.float32)


def columns_of(k: int) -> list[Subset]:
    """The subset that each column of `subset_columns` is of."""
    return [frozenset(e for e in range(k) if c >> e & 1) for c in range(2**k)]


def subset_columns(
    values: Mapping[Subset, Float[np.ndarray, "T"]], k: int
) -> Float[np.ndarray, "T subset"] | None:
    """v of every subset in one array [T, 2^k], float32: column c has the adapters whose bit is set
    in c, so that column 0 is the base's. None of more than MAX_SHAPLEY adapters, of which most
    subsets are not read."""
    if k > MAX_SHAPLEY:
        return None
    return np.stack([np.asarray(values[one], np.float32) for one in columns_of(k)], -1)


def among(
    columns: Float[np.ndarray, "T subset"] | None, at: Sequence[int], k: int
) -> Float[np.ndarray, "T more"] | None:
    """`subset_columns` of adapters that are the `at` of k others, whose presence changes nothing;
    None with more than MAX_SHAPLEY."""
    if columns is None or k > MAX_SHAPLEY:
        return None
    return columns[:, [sum(1 << e for e, n in enumerate(at) if c >> n & 1) for c in range(2**k)]]


def effect_shares(effects: Float[np.ndarray, "*t k"]) -> np.ndarray:
    """Each adapter's share [*t, k] of what made a token likelier, float32; a row of 0 where no
    effect reaches CHANGED, so that the mean over an answer leaves the base its part."""
    likelier = np.maximum(effects, 0, dtype=np.float32)
    if not likelier.shape[-1]:
        return likelier
    total = likelier.sum(-1, keepdims=True)
    changed = likelier.max(-1, keepdims=True) >= CHANGED
    return np.divide(likelier, total, out=np.zeros_like(likelier), where=changed)


def effects_record(answer: "Generation") -> dict[str, object]:
    """The effects of an answer and what they lie between as plain JSON, four digits; empty where
    they were not requested."""
    if answer.effects is None or answer.logprob is None or answer.base_logprob is None:
        return {}
    told = {
        "effects": answer.effects,
        "logprob": answer.logprob,
        "base_logprob": answer.base_logprob,
    }
    numbers = {name: np.round(one.astype(np.float64), 4).tolist() for name, one in told.items()}
    most = max((len(part.adapters) for part in answer.parts), default=answer.effects.shape[1])
    return {**numbers, "effects_by": rule_of(most)}
