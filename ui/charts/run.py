"""One prompt and its answer as plain data, for every panel."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ramole_core import Explanation, Generation, Request, effect_shares

from .did import Did, leader_of
from .palette import places_of

EVEN = 1e-4
"""Two shares closer than this are the same: no expert stands out."""

MEASURES = EFFECT, CONTRIBUTION, WEIGHT = "effect", "contribution", "weight"
"""Measures of an adapter's part in a token: its effect, its contribution to the layers' outputs, or
its weight by the gate."""

NAMED, UNCOMPARED = "named", "not compared"
"""Why an adapter has no similarity: it was named, or was not found by one (it shows no examples, or
the method has a fixed pool)."""


@dataclass(frozen=True)
class FoundAdapter:
    """One adapter beside a prompt: its similarity, and whether it was taken."""

    name: str
    score: float
    taken: bool
    without: str = NAMED
    """Why there is no score, where it is nan."""
    about: str = ""
    """Short description from its card."""


@dataclass(frozen=True)
class Run:
    """A finished (or stopped) answer."""

    request: Request
    answer: Generation
    pieces: tuple[str, ...]
    """The text that each token added to the answer."""
    found: tuple[FoundAdapter, ...] = ()
    beside: Generation | None = None
    """The bare base's answer from the same batch."""
    explained: dict[int, Explanation] = field(default_factory=dict)
    """The likeliest tokens by index of the generated token, where they were recorded."""
    title: str = ""
    """Title of a recorded example; empty for a live run."""
    beside_columns: tuple[str, ...] = ()
    """Adapters of the columns before this one, in a comparison."""
    before: tuple[int, ...] = ()
    """Token ids of the prompt that were cut off the trace, to keep an earlier turn small."""

    @property
    def experts(self) -> list[str]:
        """The answer's own, in the order of the last axis of `gates`."""
        return list(self.answer.adapters)

    @property
    def places(self) -> list[int]:
        """The number of each expert in its conversation, for letter and colour."""
        return places_of(self.experts, self.met)

    @property
    def met(self) -> list[str]:
        """The adapters of the columns before, and of earlier turns, in their order."""
        turns = [name for turn in self.request.history for name in turn[2] or ()]
        return [*self.beside_columns, *turns]

    @property
    def gates(self) -> np.ndarray:
        """[n, layer, module, k] float32: row i is the gate that predicted generated token i."""
        return self._rows("weights", np.float32)

    @property
    def contribution(self) -> np.ndarray:
        """[n, layer, module, k] float32, the contributions."""
        return self._rows("contribution", np.float32)

    @property
    def present(self) -> np.ndarray:
        """[n, layer, module, k] bool: whether the expert has the module."""
        return self._rows("present", np.bool_)

    @property
    def effects(self) -> np.ndarray | None:
        """[n, k] float32: each expert's effect on the token, in nats; None where it was not
        measured."""
        found = self.answer.effects
        return None if found is None else found[: len(self.pieces)]

    def did(self, index: int) -> Did | None:
        """The effects on one token; None where not measured."""
        effects, answer = self.effects, self.answer
        if effects is None or not 0 <= index < len(effects):
            return None
        assert answer.logprob is not None and answer.base_logprob is not None
        found = self._did(effects[index], answer.base_logprob[index], answer.logprob[index])
        subsets = answer.subset_logprob
        return found if subsets is None else replace(found, subsets=tuple(subsets[index].tolist()))

    @property
    def did_all(self) -> Did | None:
        """The effects on the whole answer: sums over its tokens."""
        effects, answer = self.effects, self.answer
        if effects is None:
            return None
        assert answer.logprob is not None and answer.base_logprob is not None
        n = len(effects)
        return self._did(effects.sum(0), answer.base_logprob[:n].sum(), answer.logprob[:n].sum())

    def _did(self, effects: np.ndarray, base: float, mixture: float) -> Did:
        named = tuple(zip(self.experts, self.places, strict=True))
        return Did(named, float(base), tuple(map(float, effects)), float(mixture))

    @property
    def leaders(self) -> list[int]:
        """The adapter that leads each token, by the measure of `shares`; -1 where none does."""
        if self.effects is not None:
            return [leader_of(row) for row in self.effects]
        return [strongest(row) for row in self.shares]

    @property
    def measure(self) -> str:
        """The measure of `shares`: one of `MEASURES`, but weights."""
        return CONTRIBUTION if self.effects is None else EFFECT

    @property
    def shares(self) -> np.ndarray:
        """[n, k]: each expert's share of what made the token likelier, 0 where the base would have
        said it; where effects were not measured, of what all contributed to it."""
        if self.effects is not None:
            return effect_shares(self.effects)
        return self.contribution_shares

    @property
    def contribution_shares(self) -> np.ndarray:
        """[n, k]: each expert's share of what all contributed to the token."""
        return self._rows("shares", np.float32)

    def _rows(self, name: str, dtype: type) -> np.ndarray:
        """The rows of the trace that predicted the generated tokens."""
        trace = self.answer.trace
        if trace is None:
            return np.zeros((0, 0) if name == "shares" else (0, 0, 0, 0), dtype)
        first, k = trace.prompt_length - 1, len(self.experts)
        return getattr(trace, name)[first : first + len(self.pieces)][..., :k].astype(dtype)


def strongest(shares: Sequence[float] | np.ndarray) -> int:
    """The expert with the largest share; -1 where two share the lead, or there is none."""
    shares = np.asarray(shares, dtype=np.float64)
    if not shares.size or not np.isfinite(shares).all() or shares.max() <= 0:
        return -1
    order = np.argsort(-shares)
    if len(order) > 1 and shares[order[0]] - shares[order[1]] < EVEN:
        return -1
    return int(order[0])


def led_by(leaders: Sequence[int], k: int) -> list[float]:
    """For each of k experts, the share of tokens that it led."""
    total = max(len(leaders), 1)
    return [sum(leader == expert for leader in leaders) / total for expert in range(k)]


def entropy(gates: np.ndarray, present: np.ndarray) -> np.ndarray:
    """[n, layer, module, k] -> [n]: mean entropy in nats of the gates; log k where all are even.

    Modules that no adapter has do not count; weights that do not sum to 1 are first divided by
    their sum, each by its size where some are negative.
    """
    gates = np.abs(gates)
    total = gates.sum(-1, keepdims=True)
    there = present.any(-1) & (total[..., 0] > 0)
    share = np.clip(np.divide(gates, total, out=np.zeros_like(gates), where=total > 0), 0, 1)
    each = -(share * np.log(np.where(share > 0, share, 1))).sum(-1)
    count = there.sum((1, 2))
    return np.where(count > 0, (each * there).sum((1, 2)) / np.maximum(count, 1), 0.0)


def weight_of(run: Run | None) -> int:
    """Bytes of a run in memory, mostly its trace's."""
    if run is None:
        return 0
    trace = run.answer.trace
    arrays = () if trace is None else (trace.weights, trace.contribution, trace.present)
    words = len(run.request.prompt) + len(run.answer.text)
    return sum(one.nbytes for one in arrays if one is not None) + 4 * words + 200 * len(run.pieces)
