"""Count the parts of a JSON body as it comes, before it is parsed.

Readers of JSON make an object of each part: 4 MB of `[]` cost seconds of the event loop; and they,
or who looks at what they made, call themselves for each part in another. What stands in strings is
text and not counted.
"""

import codecs
import re

import numpy as np

MAX_DEPTH = 100
"""Lists and objects in one another."""
MAX_PARTS = 50_000
"""Of one body: `[`, `{` and `,` outside of strings."""
ESCAPED = re.compile(rb"\\.", re.DOTALL)
BRACKETS = {b"[": 1, b"{": 1, b"]": -1, b"}": -1}
OTHERS = bytes(set(range(256)) - set(b"".join(BRACKETS)))
STEPS = np.zeros(256, np.int64)
STEPS[list(b"".join(BRACKETS))] = list(BRACKETS.values())


class JsonParts:
    """Counts the parts of a body whose pieces end anywhere; a body that is no JSON has a count too,
    in one pass."""

    def __init__(self):
        self.count = 0
        self.depth = 0
        """The most that were in one another."""
        self._now = 0
        self._inside = False
        self._tail = b""
        self._decoder = codecs.getincrementaldecoder("utf-8")()

    def feed(self, piece: bytes, *, last: bool = False) -> None:
        """Add the next piece of the body; raises UnicodeDecodeError where it is no text in UTF-8,
        which is what JSON is sent in."""
        self._decoder.decode(piece, last)
        piece = self._tail + piece
        slashes = len(piece) - len(piece.rstrip(b"\\"))
        self._tail = piece[-1:] if slashes % 2 else b""
        pieces = ESCAPED.sub(b"", piece[: len(piece) - slashes % 2]).split(b'"')
        outside = b" ".join(pieces[self._inside :: 2])
        self.count += sum(map(outside.count, (b"[", b"{", b",")))
        if brackets := outside.translate(None, OTHERS):
            depths = self._now + np.cumsum(STEPS[np.frombuffer(brackets, np.uint8)])
            self._now, self.depth = int(depths[-1]), max(self.depth, int(depths.max()))
        self._inside ^= len(pieces) % 2 == 0
