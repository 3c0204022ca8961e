"""Where draft tokens come from: places that an answer copies, and words of a text without spaces.

*Copies*: where copying goes on is known by the last tokens, their case and spaces left out: behind
the newest place of the same three or two, in the prompt or the answer. Where there is none, a token
that was changed, inserted or left out keeps the place, moves it on, or ends the copying after
MAX_CHANGED others.

*Words*: where a prompt has a run of letters and marks that is longer than words are, an answer may
say it with spaces. Its next characters are cut into tokens of the vocabulary that begin with a
space, or have none at a price, such that the sum of log(RANK + id) is least: byte-pair encoding
numbers tokens about as often as they are used, so this is a unigram model of words.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

from transformers import PreTrainedTokenizerBase

MAX_CHANGED = 2
AHEAD = 6
"""Tokens of the source among which one that follows is looked for."""
RUN = re.compile(r"[!-~]{24,}")
"""A run without spaces that is longer than words are."""
SPACES = ("Ġ", "▁")
"""How vocabularies spell the space before a word."""
RANK, PRICE = 50, 2.0
"""Of the unigram model: added to a token's id, and what a token without a space costs."""
CHARACTERS, LONGEST = 48, 16
"""Of a run that are cut at once, and of one token."""
Vocabulary = Mapping[str, tuple[int, float]]
"""By characters: the token that says them at the least price, and that price."""
NEAR, MIN_FOUND = 24, 3
"""Characters of a run, either way, in which so many or more are looked for."""


class Copies:
    """What an answer copies of its prompt and of itself."""

    def __init__(self, prompt: Sequence[int], spelled: Callable[[int], str]):
        """Begin behind the prompt; `spelled` gives a token's text."""
        self._spelled = spelled
        self._ids = list(prompt)
        self._words = [self._word(token) for token in self._ids]
        self._last: dict[tuple[str, ...], int] = {}
        """The place behind the newest of each one, two and three words."""
        for n in (1, 2, 3):
            rows = zip(*(self._words[i:] for i in range(n)), strict=False)
            self._last.update(zip(rows, range(n, len(self._ids)), strict=False))
        self._at: int | None = None
        """The place whose token comes next, where the answer copies."""
        self._changed = 0

    @property
    def last(self) -> int:
        return self._ids[-1]

    def ahead(self, most: int) -> list[int]:
        """At most so many tokens that may come next."""
        return [] if self._at is None else self._ids[self._at : self._at + most]

    def read(self, token: int) -> None:
        """Take the answer's next token."""
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


class Words:
    """The words of a run without spaces, one token after another."""

    def __init__(self, run: str, spelled: Callable[[int], str], vocabulary: Vocabulary):
        """`run`: the text; `spelled` gives a token's text."""
        self._run, self._spelled, self._vocabulary = run, spelled, vocabulary
        self._at = self._end = 0
        """The place in the run that the answer has come to, and that behind `_next`."""
        self._cut_at = -1
        """The place from which `_next` was cut."""
        self._next: list[int] = []
        self.last = 0

    def ahead(self, most: int) -> list[int]:
        """At most so many tokens that may come next."""
        few = len(self._next) < most and self._end < len(self._run)
        if few and self._cut_at != self._at:  # what follows of a place is the same at each look
            self._cut(self._at)
        return self._next[:most]

    def read(self, token: int) -> None:
        """Take the answer's next token; one that is not in the run there is looked for near it."""
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
            at = self._run.find(text, max(0, self._at - NEAR), self._at + NEAR)
        if at >= 0:
            self._at = self._end = at + len(text)
            self._next = []

    def _cut(self, start: int) -> None:
        """Cut what follows of the run into tokens."""
        self._cut_at, part = start, self._run[start : start + CHARACTERS]
        best: list[tuple[float, int, int]] = [(0.0, 0, -1)]
        """By place: the least sum, where its last token begins, and that token; -1: there is
        none."""
        for end in range(1, len(part) + 1):
            found = math.inf, 0, -1
            for begin in range(max(0, end - LONGEST), end):
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
    """The longest run without spaces that is longer than words are; empty: there is none."""
    return max(RUN.findall(text), key=len, default="")


@lru_cache(4)
def words_of(tokenizer: PreTrainedTokenizerBase) -> Vocabulary:
    """The tokens of a vocabulary that `Words` may use."""
    found: dict[str, tuple[int, float]] = {}
    for spelled, token in tokenizer.get_vocab().items():
        spaced = spelled.startswith(SPACES)
        text = spelled[1:] if spaced else spelled
        if 0 < len(text) <= LONGEST and text.isascii() and text.isprintable():
            price = math.log(RANK + token) + (0.0 if spaced else PRICE)
            if price < found.get(text, (-1, math.inf))[1]:
                found[text] = token, price
    return found
