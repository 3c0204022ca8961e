"""Group the tokens of an answer into words or sentences, and find the words in which two differ.

A token belongs to the word, or sentence, in which its first character stands that is no white
space; one without any belongs to the one before. Words are what stands between white space.
"""

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import accumulate

from .explained import spell

PER = ("token", "word", "sentence")
"""Kinds of a figure's columns."""
SENTENCE = re.compile(r"(?:[.!?…][\"')\]»”’]*\s+|[。！？]\s*|\n\s*)(\S)")  # noqa: RUF001
"""A sentence's first character, after the end of another."""


@dataclass(frozen=True)
class Spans:
    """An answer's tokens in groups, one after another."""

    at: tuple[int, ...]
    """The group of each token."""
    texts: tuple[str, ...]
    """Readable text of each group."""

    @property
    def starts(self) -> list[int]:
        """The first token of each group."""
        return [self.at.index(group) for group in range(len(self.texts))]


def spans_of(pieces: Sequence[str], per: str = "token") -> Spans:
    """The groups of the tokens with these texts; `per` is one of `PER`."""
    if per not in PER:
        raise ValueError(f"{per!r} is none of {', '.join(PER)}")
    if per == "token":
        return Spans(tuple(range(len(pieces))), tuple(map(spell, pieces)))
    text = "".join(pieces)
    found = re.finditer(r"(?<!\S)(\S)", text) if per == "word" else SENTENCE.finditer(text)
    begins = [match.start(1) for match in found]
    raw, position, last = [], 0, 0
    for piece in pieces:
        blank = len(piece) - len(piece.lstrip())
        if blank < len(piece):
            last = bisect_right(begins, position + blank)
        raw.append(last)
        position += len(piece)
    numbers = {number: group for group, number in enumerate(dict.fromkeys(raw))}
    at = tuple(numbers[number] for number in raw)
    texts = ["" for _ in numbers]
    for group, piece in zip(at, pieces, strict=True):
        texts[group] += piece
    return Spans(at, tuple(" ".join(one.split()) or spell(one) for one in texts))


def differing(pieces: Sequence[str], first: Sequence[str]) -> list[int]:
    """Places of the tokens in `pieces` that belong to words which the first answer has not, in the
    order of both; words are what stands between white space."""
    text, other = "".join(pieces), "".join(first)
    spans = [match.span() for match in re.finditer(r"\S+", text)]
    words = [text[low:high] for low, high in spans]
    same = SequenceMatcher(None, other.split(), words, autojunk=False).get_matching_blocks()
    shared = {n for block in same for n in range(block.b, block.b + block.size)}
    own = [span for n, span in enumerate(spans) if n not in shared]
    ends = list(accumulate(map(len, pieces)))
    return [
        n
        for n, (piece, end) in enumerate(zip(pieces, ends, strict=True))
        if any(low < end and end - len(piece) < high for low, high in own)
    ]
