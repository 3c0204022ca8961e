"""Draft tokens: what an answer may go on with, copied from its prompt and from itself.

They are checked in the forward that makes the next token, each as a row of the step behind the
request's own (prompt lookup decoding, A. Saxena, 2023; speculative decoding, Leviathan et al.,
arXiv 2211.17192). A token's bits do not depend on the other rows of its step, and each token is
chosen from its own row as it would be alone, greedy or sampled; so a draft changes how many tokens
a step makes, and none of them.

How well a source's drafts were is known by the adapter that leads (`Habit`); of the sources of
`draft_sources.py` a step takes the one that gains most.
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
"""With room for fewer a request, among many in one step, none is made."""
START, STOP = 1.05, 1.0
"""Tokens a second with drafts over those without: from where on they are made, and end."""
BETTER = 1.05
"""Of what steps of another size gain, to change it."""
KEEP = 0.97
"""Of what a habit knows, a token later."""
BEGIN = 8.0
"""Tokens without a gain that a new habit begins with."""
MAX_READ = 2048
"""Tokens at the end of a prompt that are read."""
MAX_HABITS = 512


@dataclass
class Habit:
    """How well drafts were for answers by one adapter: means that fade."""

    costs: Mapping[int, float]
    """One of COSTS."""
    tokens: float = BEGIN
    steps: dict[int, float] = field(default_factory=dict)
    """The steps that make them, by how many drafts each has."""

    def __post_init__(self):
        self.steps = self.steps or dict.fromkeys(self.costs, BEGIN)

    def add(self, begun: Mapping[int, bool]) -> None:
        """Add a token; `begun` says whether it begins a step."""
        self.tokens = KEEP * self.tokens + 1
        self.steps = {count: KEEP * self.steps[count] + one for count, one in begun.items()}

    def gain(self, count: int) -> float:
        """Tokens a second with so many drafts a step, over those without."""
        return self.tokens / self.steps[count] / self.costs[count] if count else 1.0


class Habits:
    """The habits by the adapter that leads, the newest MAX_HABITS."""

    def __init__(self, way: str):
        """`way`: of the base's products."""
        self.of = lru_cache(MAX_HABITS)(lambda name, source: Habit(COSTS[way]))
        """The habit of a source in an adapter's answers; empty: the base's."""


class Draft:
    """The drafts of one source for one answer."""

    def __init__(self, source: Copies | Words, habit: Habit):
        self.source, self._habit = source, habit
        self._left = dict.fromkeys(habit.costs, 0)
        """Of a step with so many drafts: what may still come of them; 0: it is over."""
        self._count = 0

    def length(self, room: int, most: int) -> int:
        """Draft tokens of the next step, as many as COSTS has, at most `most`, or 0; `room` tokens
        may be fed."""
        counts = [count for count in self._left if count <= most]
        self._count = self._count if self._count <= most else 0
        now, best = self._habit.gain(self._count), max(counts, key=self._habit.gain)
        gain = self._habit.gain(best)
        if self._count and now < STOP:
            self._count = 0
        if gain > (BETTER * now if self._count else START):
            self._count = best
        return self._count if room > self._count else 0

    @property
    def gain(self) -> float:
        """Of steps of the length that was found last."""
        return self._habit.gain(self._count)

    def tokens(self, count: int) -> list[int]:
        """So many tokens that may come next; what is not expected is the last one again."""
        found = self.ahead[:count]
        return found + [self.source.last] * (count - len(found))

    @property
    def ahead(self) -> list[int]:
        """Tokens that are expected next, as many as a step may have or fewer."""
        return self.source.ahead(max(self._left))

    def push(self, token: int) -> None:
        """Take the next token that a step has made."""
        ahead, begun = self.ahead, {}
        for count, left in self._left.items():
            begun[count] = not left
            left = left or 1 + min(count, len(ahead))  # its own token, and one behind each draft
            self._left[count] = left - 1 if ahead[:1] == [token] else 0
        self._habit.add(begun)
        self.source.read(token)


class Drafts:
    """The drafts of one answer, of all of its sources."""

    def __init__(self, every: Sequence[Draft]):
        self._every = every

    @classmethod
    def begin(
        cls, prompt: Sequence[int], tokenizer: PreTrainedTokenizerBase, habits: Habits, name: str
    ) -> "Drafts":
        """Begin behind the prompt; `name` is the adapter that leads."""
        prompt, spelled = list(prompt[-MAX_READ:]), partial(spell_token, tokenizer)
        every = [Draft(Copies(prompt, spelled), habits.of(name, Copies))]
        if run := run_of(str(tokenizer.decode(prompt))):
            words = Words(run, spelled, words_of(tokenizer))
            every.append(Draft(words, habits.of(name, Words)))
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
