"""Draft tokens: likely continuations, copied from the prompt and the answer itself.

They are checked in the forward that makes the next token, each as a row of the step behind the
request's own (prompt lookup decoding, A. Saxena, 2023; speculative decoding, Leviathan et al.,
arXiv 2211.17192). A token's bits do not depend on the other rows of its step, and each token is
chosen from its own row as it would be alone, greedy or sampled; so a draft changes how many tokens
a step makes, and none of them.

The gain of a source's drafts is measured for each first adapter of an answer (`DraftGain`); of the
sources in `draft_sources.py` a step uses the one with the largest gain.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial

from transformers import PreTrainedTokenizerBase

from ramole_core.engine.decoding import spell_token
from ramole_core.engine.draft_sources import Copies, Words, run_of, words_of
from ramole_core.kernels.ways import DOTS, TILES, VECTORS

COSTS: Mapping[str, Mapping[int, float]] = {
    TILES: {1: 1.1, 3: 1.21, 7: 1.41},
    DOTS: {1: 1.1, 3: 1.32},
    VECTORS: {1: 1.15, 3: 1.64},
}
"""By the way of products: the draft tokens that a step may have, since steps of one size are
recorded once, and how long it takes, over one without (LOG)."""
FEW_DRAFTS = 3
"""Fewest draft tokens a request; with room for fewer in a large step, none is made."""
START, STOP = 1.05, 1.0
"""Gains (`DraftGain.gain`) above which drafts start, and below which they stop."""
MIN_CHANGE = 1.05
"""Ratio of gains above which the number of drafts changes."""
DECAY = 0.97
"""Decay of a mean with each token."""
START_WEIGHT = 8.0
"""Weight of a new mean, in tokens without a gain."""
MAX_READ = 2048
"""Tokens at the end of a prompt that are read."""
MAX_GAINS = 512


@dataclass
class DraftGain:
    """Gain of drafts in answers by one adapter: decaying means."""

    costs: Mapping[int, float]
    """One of COSTS."""
    tokens: float = START_WEIGHT
    steps: dict[int, float] = field(default_factory=dict)
    """The steps that made these tokens, by number of drafts."""

    def __post_init__(self):
        self.steps = self.steps or dict.fromkeys(self.costs, START_WEIGHT)

    def add(self, begun: Mapping[int, bool]) -> None:
        """Add a token; `begun` says whether it begins a step."""
        self.tokens = DECAY * self.tokens + 1
        self.steps = {count: DECAY * self.steps[count] + one for count, one in begun.items()}

    def gain(self, count: int) -> float:
        """Tokens a second with so many drafts a step, over tokens a second without."""
        return self.tokens / self.steps[count] / self.costs[count] if count else 1.0


class DraftGains:
    """Gains by adapter and source, the newest MAX_GAINS."""

    def __init__(self, way: str):
        """`way`: of the base's products."""
        self.of = lru_cache(MAX_GAINS)(lambda name, source: DraftGain(COSTS[way]))
        """The gain of a source in an adapter's answers; empty name: in the base's."""


class Draft:
    """The drafts of one source for one answer."""

    def __init__(self, source: Copies | Words, gain: DraftGain):
        self.source, self._gain = source, gain
        self._left = dict.fromkeys(gain.costs, 0)
        """By number of drafts: tokens that the current step may still accept; 0: it ended."""
        self._count = 0

    def length(self, room: int, most: int) -> int:
        """Draft tokens of the next step, as many as COSTS has, at most `most`, or 0; `room` tokens
        may be fed."""
        counts = [count for count in self._left if count <= most]
        self._count = self._count if self._count <= most else 0
        now, best = self._gain.gain(self._count), max(counts, key=self._gain.gain)
        gain = self._gain.gain(best)
        if self._count and now < STOP:
            self._count = 0
        if gain > (MIN_CHANGE * now if self._count else START):
            self._count = best
        return self._count if room > self._count else 0

    @property
    def gain(self) -> float:
        """Gain of steps of the last length."""
        return self._gain.gain(self._count)

    def tokens(self, count: int) -> list[int]:
        """Return `count` likely next tokens, padded with the last token."""
        found = self.ahead[:count]
        return found + [self.source.last] * (count - len(found))

    @property
    def ahead(self) -> list[int]:
        """Likely next tokens, at most those of the longest step."""
        return self.source.ahead(max(self._left))

    def push(self, token: int) -> None:
        """Take the next token that a step has made."""
        ahead, begun = self.ahead, {}
        for count, left in self._left.items():
            begun[count] = not left
            left = left or 1 + min(count, len(ahead))  # its own token, and one behind each draft
            self._left[count] = left - 1 if ahead[:1] == [token] else 0
        self._gain.add(begun)
        self.source.read(token)


class Drafts:
    """The drafts of one answer from all sources."""

    def __init__(self, every: Sequence[Draft]):
        self._every = every

    @classmethod
    def begin(
        cls, prompt: Sequence[int], tokenizer: PreTrainedTokenizerBase, gains: DraftGains, name: str
    ) -> "Drafts":
        """Begin after the prompt; `name` is the answer's first adapter."""
        prompt, spelled = list(prompt[-MAX_READ:]), partial(spell_token, tokenizer)
        every = [Draft(Copies(prompt, spelled), gains.of(name, Copies))]
        if run := run_of(str(tokenizer.decode(prompt))):
            words = Words(run, spelled, words_of(tokenizer))
            every.append(Draft(words, gains.of(name, Words)))
        return cls(every)

    def next(self, room: int, most: int) -> list[int]:
        """Draft tokens of the next step, at most `most`; `room` tokens may be fed."""
        lengths = {one: one.length(room, most) for one in self._every}
        best = max(lengths, key=lambda one: one.gain if lengths[one] else 0.0)
        return best.tokens(lengths[best])

    def push(self, token: int) -> None:
        """Take the next token that a step has made."""
        for one in self._every:
            one.push(token)

    def read(self, token: int) -> None:
        """Take a token that came with the prompt."""
        for one in self._every:
            one.source.read(token)
