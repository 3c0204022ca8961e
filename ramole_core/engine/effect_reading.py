"""The readings of one answer that its effects are made of (`ramole_core/effects.py`).

For each subset S of its adapters, the answer's tokens are read again, in chunks as a prompt's are,
and v(S) is the log probability of each given token. The prompt stays as the run read it, in the
pages of the cache; from its last token on, which predicts the answer's first, the request's method
decides about the adapters of S alone. v(all) comes from the run itself, and is read again only for
tokens that were given (`prefix_ids`) or made by an engine that was lost. v(none) is the base's own:
it reads the prompt too.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ramole_core.effects import Subset, effects_of, subsets_of
from ramole_core.engine.pair_reading import Pair, PairReading
from ramole_core.engine.request_state import RequestState
from ramole_core.request import Generation


def needs_effects(state: RequestState, answer: Generation) -> bool:
    """Whether effects were asked for, of an answer that has tokens and came to its end."""
    return state.request.effects and bool(state.tokens) and answer.finish_reason != "cancelled"


@dataclass(eq=False)
class EffectReading:
    """The log probabilities of one answer, as its readings end."""

    ids: tuple[int, ...]
    """Of the answer."""
    pair: Pair
    """What is fed: the prompt, and the answer but for its last token."""
    k: int
    """Adapters that answered."""
    values: dict[Subset, Sequence[float]]
    """v of each subset that is known."""
    states: Mapping[RequestState, Subset]
    """What is being read."""

    @classmethod
    def of(cls, state: RequestState) -> "EffectReading":
        """Of an answer that has ended; nothing is read yet."""
        ids = tuple(state.tokens)
        k = len(state.segments.open.names)
        pair = Pair((*state.prompt_ids, *ids[:-1]), ids)
        return cls(ids, pair, k, {frozenset(range(k)): list(state.logprobs)}, {})

    @property
    def everybody(self) -> Subset:
        return frozenset(range(self.k))

    @property
    def wanted(self) -> tuple[Subset, ...]:
        """The subsets that have to be read."""
        every = (frozenset(), *subsets_of(self.k)) if self.k else ()
        known = not any(map(math.isnan, self.values[self.everybody]))
        return every if known else (*every, self.everybody)

    def hear(self, state: RequestState, reading: PairReading) -> None:
        """A reading has ended."""
        subset, found = self.states[state], [-loss for loss in reading.losses]
        if subset == self.everybody:
            run = self.values[subset]
            found = [v if math.isnan(own) else own for own, v in zip(run, found, strict=True)]
        self.values[subset] = found
        self.states = {one: s for one, s in self.states.items() if one is not state}

    def complete(self, answer: Generation, *, seconds: float) -> Generation:
        """The answer with its effects, once all is read; `seconds` went by since its last token."""
        logprob = np.array(self.values[self.everybody], np.float32)
        base = np.array(self.values[frozenset()], np.float32)
        values = {subset: np.array(v, np.float32) for subset, v in self.values.items()}
        return replace(
            answer,
            effects=effects_of(values, self.k),
            logprob=logprob,
            base_logprob=base,
            extra={**answer.extra, "effects": seconds},
        )
