"""The words in which two answers differ."""

import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from itertools import accumulate


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
