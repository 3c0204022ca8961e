"""Markdown from untrusted authors -> its plain words, in linear time.

An expression that searches `[a](b)` or `<!-- -->` begins anew at every `[` or `<!--` and runs to
the end of the text each time: a card of brackets alone would hold the process for hours. Here every
search continues where the last one ended; an end that is missing once is not searched again.
"""

import re

_EMPHASIS = re.compile(r"[*`_]{1,3}(\S[^*`]*?)[*`_]{1,3}")
"""In linear time: from a mark on, the next mark ends it, so only the last three can find none."""
_HIDDEN = re.compile("(?=(<!--|-->|^```))", re.MULTILINE)
_ENDS = {"<!--": "-->", "```": "```"}


def split_front(card: str) -> tuple[str, str]:
    """The front matter between two lines `---` on top, without them, and what follows."""
    if card.startswith("---\n"):
        if (end := card.find("\n---\n", 4)) >= 0:
            return card[4 : end + 1], card[end + 5 :]
        if card.startswith("---\n", 4):
            return "", card[8:]
    return "", card


def drop_hidden(text: str) -> str:
    """`text` with a space for each comment and each fenced block of code that is closed."""
    pieces, at, opened = [], 0, ""
    marks = [(mark.start(), mark[1]) for mark in _HIDDEN.finditer(text)]
    last = {mark: start for start, mark in marks}
    for start, mark in marks:
        end = start + len(mark)
        if start >= at and opened and mark == _ENDS[opened]:
            pieces.append(" ")
            at, opened = end, ""
        elif start >= at and not opened and end <= last.get(_ENDS.get(mark, ""), -1):
            pieces.append(text[at:start])
            at, opened = end, mark
    return "".join([*pieces, text[at:]])


def unwrap_links(text: str) -> str:
    """`text` with `words` for each `[words](target)`."""
    pieces, at = [], 0
    begin = text.find("[")
    while begin >= 0:
        middle = text.find("]", begin)
        if middle < 0:
            break
        end = middle + 1  # every bracket up to here has this same end
        if text.startswith("(", end):
            close = text.find(")", end)
            if close < 0:
                break  # nor has a later link one
            pieces += text[at:begin], text[begin + 1 : middle]
            at = end = close + 1
        begin = text.find("[", end)
    return "".join([*pieces, text[at:]])


def unwrap_emphasis(text: str) -> str:
    """`text` with `words` for `*words*`, `**words**`, `_words_` and the like."""
    return _EMPHASIS.sub(r"\1", text)
