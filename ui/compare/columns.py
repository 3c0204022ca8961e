"""A column's way of answering, as a request; and in which words two answers differ."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import accumulate

from ramole_core import RamoleError, Request

from ..parts.fields import METHOD

MOST = 4
"""Columns."""


@dataclass(frozen=True)
class Column:
    """What is chosen above a column, as gradio hands it over."""

    method: str = METHOD
    k: float = 3
    adapters: Sequence[str] = ()
    """Exactly these; none: those that are found."""
    without: Sequence[str] = ()
    """Never these."""

    def request(self, prompt: str, owner: str | None, *, max_new_tokens: float) -> Request:
        """What the column asks; raises RamoleError with one sentence."""
        named = [name for name in self.adapters or () if name not in (self.without or ())]
        if self.adapters and not named:
            raise RamoleError(
                f"All of {', '.join(self.adapters)} are named and left out at once; take one of "
                "them off either list."
            )
        return Request(
            prompt or "",
            method=self.method,
            k=int(self.k),
            adapters=named or None,
            exclude=() if named else tuple(self.without or ()),
            max_new_tokens=int(max_new_tokens),
            owner=owner,
        )


START = (Column(), Column("base"), Column("mixture"), Column("selection"))
"""The columns at the start; the first two are in sight."""


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
