"""Draft tokens: what an answer may go on with, copied from its prompt and from itself.

They are checked in the forward that makes the next token, each as a row of the step behind the
request's own (prompt lookup decoding, A. Saxena, 2023; speculative decoding, Leviathan et al.,
arXiv 2211.17192). A token's bits do not depend on the other rows of its step, and each token is
chosen from its own row as it would be alone, greedy or sampled; so a draft changes how many tokens
a step makes, and none of them.

Where copying goes on is known by the last tokens, their case and spaces left out: behind the
newest place of the same three or two. Where there is none, a token that was changed, inserted or
left out keeps the place, moves it on, or ends the copying after MAX_CHANGED others.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

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
MAX_CHANGED = 2
AHEAD = 6
"""Tokens of the source among which one that follows is looked for."""
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
        self.of = lru_cache(MAX_HABITS)(lambda name: Habit(COSTS[way]))
        """The habit of an adapter's answers; empty: the base's."""


class Draft:
    """The drafts of one answer."""

    def __init__(self, prompt: Sequence[int], spelled: Callable[[int], str], habit: Habit):
        """Begin behind the prompt; `spelled` gives a token's text."""
        self._spelled, self._habit = spelled, habit
        self._ids = list(prompt[-MAX_READ:])
        self._words = [self._word(token) for token in self._ids]
        self._last: dict[tuple[str, ...], int] = {}
        """The place behind the newest of each one, two and three words."""
        for at in range(1, len(self._ids)):
            self._index(at)
        self._at: int | None = None
        """The place whose token comes next, where the answer copies."""
        self._changed = 0
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

    def tokens(self, count: int) -> list[int]:
        found = self.ahead[:count]
        return found + [self._ids[-1]] * (count - len(found))

    @property
    def ahead(self) -> list[int]:
        """Tokens that are expected next, as many as a step may have or fewer."""
        return [] if self._at is None else self._ids[self._at : self._at + max(self._left)]

    def push(self, token: int) -> None:
        """Take the next token that a step has made."""
        ahead, begun = self.ahead, {}
        for count, left in self._left.items():
            begun[count] = not left
            left = left or 1 + min(count, len(ahead))  # its own token, and one behind each draft
            self._left[count] = left - 1 if ahead[:1] == [token] else 0
        self._habit.add(begun)
        self.read(token)

    def read(self, token: int) -> None:
        """Take a token that came with the prompt."""
        self._move(token)
        self._ids.append(token)
        self._words.append(self._word(token))
        self._index(len(self._ids))

    def _move(self, token: int) -> None:
        """Move the place of copying behind the token."""
        at, word = self._at, self._word(token)
        if at is not None and at < len(self._ids) and self._words[at] == word:
            self._at, self._changed = at + 1, 0
            return
        for n in (3, 2):
            found = self._last.get((*self._words[len(self._words) - n + 1 :], word))
            if found is not None:
                self._at, self._changed = found, 0
                return
        if at is None:
            self._at = self._last.get((word,))
            return
        self._changed += 1
        near = self._words[at : at + AHEAD]
        if word in near:
            self._at = at + near.index(word) + 1
        elif self._changed > MAX_CHANGED:
            self._at = None

    def _index(self, at: int) -> None:
        """Note that `at` follows the words before it."""
        for n in range(1, min(3, at) + 1):
            self._last[tuple(self._words[at - n : at])] = at

    def _word(self, token: int) -> str:
        text = self._spelled(token)
        return text.strip().lower() or text
