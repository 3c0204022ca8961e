"""Sources of draft tokens: copied passages, and the words of a text without spaces.

*Copies*: copying continues after the newest occurrence of the last three or two tokens (case and
spaces ignored) in the prompt or the answer. Without one, a token that was changed, inserted or left
out keeps the position, moves it on, or ends the copying after MAX_CHANGED others.

*Words*: a prompt may have a run of letters and marks longer than any word, which the answer repeats
with spaces. Its next characters are cut into tokens of the vocabulary that begin with a space, or
have none at a price, such that the sum of log(RANK_OFFSET + id) is least: byte-pair encoding
numbers tokens about by their frequency, so this is a unigram model of words.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

from transformers import PreTrainedTokenizerBase

MAX_CHANGED = 2
MAX_SKIPPED = 6
"""Tokens of the source that are searched for a changed token."""
LONG_RUN = re.compile(r"[!-~]{24,}")
"""A run without spaces, longer than any word."""
SPACE_MARKS = ("Ġ", "▁")
"""How vocabularies spell the space before a word."""
RANK_OFFSET, NO_SPACE_PRICE = 50, 2.0
"""Of the unigram model: added to a token's id, and the price of a token without a space."""
MAX_CUT, MAX_TOKEN = 48, 16
"""Characters of a run that are cut at once, and of one token."""
Vocabulary = Mapping[str, tuple[int, float]]
"""By text: its cheapest token, and that price."""
SEARCH_RADIUS, MIN_FOUND = 24, 3
"""Characters of a run, either way, in which a token of MIN_FOUND or more is searched."""


class Copies:
    """Passages that an answer copies from its prompt and from itself."""

    def __init__(self, prompt: Sequence[int], spelled: Callable[[int], str]):
        """Begin after the prompt; `spelled` gives a token's text."""
        self._spelled = spelled
        self._ids = list(prompt)
        self._words = [self._word(token) for token in self._ids]
        self._last: dict[tuple[str, ...], int] = {}
        """By one, two or three words: the position after their newest occurrence."""
        for n in (1, 2, 3):
            rows = zip(*(self._words[i:] for i in range(n)), strict=False)
            self._last.update(zip(rows, range(n, len(self._ids)), strict=False))
        self._at: int | None = None
        """Position of the next copied token; None: the answer copies nothing."""
        self._changed = 0

    @property
    def last(self) -> int:
        return self._ids[-1]

    def ahead(self, most: int) -> list[int]:
        """Return at most so many likely next tokens."""
        return [] if self._at is None else self._ids[self._at : self._at + most]

    def read(self, token: int) -> None:
        """Take the answer's next token."""
        self._move(token)
        self._ids.append(token)
        self._words.append(self._word(token))
        self._index(len(self._ids))

    def _move(self, token: int) -> None:
        """Move the position past the token."""
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
        near = self._words[at : at + MAX_SKIPPED]
        if word in near:
            self._at = at + near.index(word) + 1
        elif self._changed > MAX_CHANGED:
            self._at = None

    def _index(self, at: int) -> None:
        """Index `at` by the words before it."""
        for n in range(1, min(3, at) + 1):
            self._last[tuple(self._words[at - n : at])] = at

    def _word(self, token: int) -> str:
        text = self._spelled(token)
        return text.strip().lower() or text


class Words:
    """The words of a run without spaces, one token after another."""

    def __init__(self, run: str, spelled: Callable[[int], str], vocabulary: Vocabulary):
        """`run`: the text; `spelled` gives a token's text."""
        self._run, self._spelled, self._vocabulary = run, spelled, vocabulary
        self._at = self._end = 0
        """Positions in the run: of the answer, and after `_next`."""
        self._cut_at = -1
        """The position from which `_next` was cut."""
        self._next: list[int] = []
        self.last = 0

    def ahead(self, most: int) -> list[int]:
        """Return at most so many likely next tokens."""
        few = len(self._next) < most and self._end < len(self._run)
        if few and self._cut_at != self._at:  # a position is cut once
            self._cut(self._at)
        return self._next[:most]

    def read(self, token: int) -> None:
        """Take the answer's next token; one that is not at this position is searched near it."""
        self.last = token
        text = "".join(self._spelled(token).split())
        if not text:
            return
        if self._next[:1] == [token]:
            self._at += len(text)
            self._next = self._next[1:]
            return
        at = self._at if self._run.startswith(text, self._at) else -1
        if at < 0 and len(text) >= MIN_FOUND:
            at = self._run.find(text, max(0, self._at - SEARCH_RADIUS), self._at + SEARCH_RADIUS)
        if at >= 0:
            self._at = self._end = at + len(text)
            self._next = []

    def _cut(self, start: int) -> None:
        """Cut the next characters of the run into tokens."""
        self._cut_at, part = start, self._run[start : start + MAX_CUT]
        best: list[tuple[float, int, int]] = [(0.0, 0, -1)]
        """By position: the least sum, where its last token begins, and that token, or -1."""
        for end in range(1, len(part) + 1):
            found = math.inf, 0, -1
            for begin in range(max(0, end - MAX_TOKEN), end):
                token, price = self._vocabulary.get(part[begin:end], (-1, math.inf))
                if (price := price + best[begin][0]) < found[0]:
                    found = price, begin, token
            best.append(found)
        end, cut = len(part), []
        while end > 0 and best[end][2] >= 0:
            cut.append((best[end][2], end))
            end = best[end][1]
        if start + len(part) < len(self._run):
            cut = cut[1:]  # the last one may be cut short
        self._next = [token for token, _ in reversed(cut)]
        self._end = start + cut[0][1] if cut else len(self._run)


def run_of(text: str) -> str:
    """Return the longest run without spaces; empty: there is none."""
    return max(LONG_RUN.findall(text), key=len, default="")


@lru_cache(4)
def words_of(tokenizer: PreTrainedTokenizerBase) -> Vocabulary:
    """Return the tokens of a vocabulary that `Words` may use."""
    found: dict[str, tuple[int, float]] = {}
    for spelled, token in tokenizer.get_vocab().items():
        spaced = spelled.startswith(SPACE_MARKS)
        text = spelled[1:] if spaced else spelled
        if 0 < len(text) <= MAX_TOKEN and text.isascii() and text.isprintable():
            price = math.log(RANK_OFFSET + token) + (0.0 if spaced else NO_SPACE_PRICE)
            if price < found.get(text, (-1, math.inf))[1]:
                found[text] = token, price
    return found
