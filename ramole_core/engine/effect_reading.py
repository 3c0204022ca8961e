"""The readings of one answer that its effects are made of (`ramole_core/effects.py`).

For each subset S of its adapters the turn that is answered is read again, prompt and answer, in
chunks as a prompt is, and v(S) is the log probability of each given token of the answer. The
request's method decides about the adapters of S alone, as though no other had been found;
earlier turns stay as they were, in the pages of the cache. v(all) comes from the run itself, and
is read again only for tokens that were given (`prefix_ids`) or made by an engine that was lost.
v(none) is the base's own, which reads the whole conversation bare.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ramole_core.effects import Subset, effects_of, subset_columns, subsets_of
from ramole_core.engine.pair_reading import Pair, PairReading
from ramole_core.engine.request_state import RequestState
from ramole_core.errors import RamoleError
from ramole_core.request import Generation


@dataclass(eq=False)
class EffectReading:
    """Collect the log probabilities of one answer's readings."""

    ids: tuple[int, ...]
    """Token ids of the answer."""
    pair: Pair
    """The tokens that are fed: the prompt, and the answer but for its last token."""
    k: int
    """Adapters that answered."""
    values: dict[Subset, Sequence[float]]
    """v of each measured subset."""
    states: Mapping[RequestState, Subset]
    """The readings that are still to come."""

    @classmethod
    def of(cls, state: RequestState) -> "EffectReading":
        ids = tuple(state.tokens)
        k = len(state.segments.open.names)
        pair = Pair((*state.prompt_ids, *ids[:-1]), ids)
        return cls(ids, pair, k, {frozenset(range(k)): list(state.logprobs)}, {})

    @property
    def everybody(self) -> Subset:
        return frozenset(range(self.k))

    @property
    def wanted(self) -> tuple[Subset, ...]:
        every = (frozenset(), *subsets_of(self.k)) if self.k else ()
        known = not any(map(math.isnan, self.values[self.everybody]))
        return every if known else (*every, self.everybody)

    def add(self, state: RequestState, reading: PairReading) -> None:
        subset, found = self.states[state], [-loss for loss in reading.losses]
        if subset == self.everybody:
            run = self.values[subset]
            found = [v if math.isnan(own) else own for own, v in zip(run, found, strict=True)]
        self.values[subset] = found
        self.states = {one: s for one, s in self.states.items() if one is not state}

    def complete(self, answer: Generation, *, ended: float) -> Generation:
        """Return the answer, which ended then, with its effects, once all is read."""
        logprob = np.array(self.values[self.everybody], np.float32)
        base = np.array(self.values[frozenset()], np.float32)
        values = {subset: np.array(v, np.float32) for subset, v in self.values.items()}
        return replace(
            answer,
            effects=effects_of(values, self.k),
            logprob=logprob,
            base_logprob=base,
            subset_logprob=subset_columns(values, self.k),
            extra={**answer.extra, "effects": time.perf_counter() - ended},
        )


def without_effects(answer: Generation, error: Exception | None) -> Generation:
    """The answer, and why its effects are missing where they could not be measured."""
    if error is None:
        return answer
    why = str(error) if isinstance(error, RamoleError) else "an error, which the log has"
    note = f"The effects of this answer are missing: {why}"
    return replace(answer, notes=(*answer.notes, note))
