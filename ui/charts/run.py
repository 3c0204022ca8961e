"""One question and what came of it, as plain data: what every panel of a tab that asks draws."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ramole_core import Explanation, Generation, Request

EVEN = 1e-4
"""Two mean weights closer than this are the same: no expert stands out."""


@dataclass(frozen=True)
class Found:
    """One adapter of the pool beside a prompt: how similar it is, and whether it was taken."""

    name: str
    score: float
    taken: bool


@dataclass(frozen=True)
class Run:
    """A finished (or stopped) answer."""

    request: "Request"
    answer: "Generation"
    pieces: tuple[str, ...]
    """The text that each token added to the answer."""
    found: tuple[Found, ...] = ()
    beside: "Generation | None" = None
    """The bare base's answer from the same batch."""
    explained: "dict[int, Explanation]" = field(default_factory=dict)
    """The likeliest tokens by index of the generated token, where they were recorded."""
    title: str = ""
    """Of a recorded example; empty for a live run."""
    before: tuple[int, ...] = ()
    """Token ids of the prompt that were cut off the trace, to keep an earlier turn small."""

    @property
    def experts(self) -> list[str]:
        """The answer's own, in the order of the last axis of `gates`."""
        return list(self.answer.adapters)

    @property
    def gates(self) -> np.ndarray:
        """[n, layer, module, k] float32: row i is the gate that predicted generated token i."""
        trace = self.answer.trace
        if trace is None:
            return np.zeros((0, 0, 0, 0), np.float32)
        first = trace.prompt_length - 1
        k = len(self.experts)  # those that only earlier turns had stand behind them
        return trace.weights[first : first + len(self.pieces)][..., :k].astype(np.float32)


def mean_weights(gates: np.ndarray) -> np.ndarray:
    """[n, layer, module, k] -> [n, k]: the mean over layers and modules."""
    n, layers, modules, k = gates.shape
    if not layers * modules:
        return np.zeros((n, k), np.float32)
    return gates.reshape(n, layers * modules, k).mean(1)


def strongest(weights: Sequence[float] | np.ndarray) -> int:
    """The expert with the largest weight; -1 where two share the lead, or there is none."""
    weights = np.asarray(weights, dtype=np.float64)
    if not weights.size or not np.isfinite(weights).all() or weights.max() <= 0:
        return -1
    order = np.argsort(-weights)
    if len(order) > 1 and weights[order[0]] - weights[order[1]] < EVEN:
        return -1
    return int(order[0])


def shares(leaders: Sequence[int], k: int) -> list[float]:
    """For each of k experts, the share of tokens that it led."""
    total = max(len(leaders), 1)
    return [sum(leader == expert for leader in leaders) / total for expert in range(k)]


def entropy(gates: np.ndarray) -> np.ndarray:
    """[n, layer, module, k] -> [n]: mean entropy in nats of the gates; log k where all are even.

    Gates that are 0 throughout (no adapter has the module) do not count; weights that do not sum to
    1 are first divided by their sum.
    """
    total = gates.sum(-1, keepdims=True)
    there = total[..., 0] > 0
    share = np.clip(np.divide(gates, total, out=np.zeros_like(gates), where=total > 0), 0, 1)
    each = -(share * np.log(np.where(share > 0, share, 1))).sum(-1)
    count = there.sum((1, 2))
    return np.where(count > 0, (each * there).sum((1, 2)) / np.maximum(count, 1), 0.0)
