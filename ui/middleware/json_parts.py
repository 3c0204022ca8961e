"""Count the parts of a JSON body as it comes, before it is parsed.

Readers of JSON make an object of each part: 4 MB of `[]` cost seconds of the event loop. What
stands in strings is text and not counted.
"""

import re

MAX_PARTS = 50_000
"""Of one body: `[`, `{` and `,` outside of strings."""
ESCAPED = re.compile(rb"\\.", re.DOTALL)


class JsonParts:
    """Counts the parts of a body whose pieces end anywhere; a body that is no JSON has a count too,
    in one pass."""

    def __init__(self):
        self.count = 0
        self._inside = False
        self._tail = b""

    def feed(self, piece: bytes) -> None:
        """Add the next piece of the body."""
        piece = self._tail + piece
        slashes = len(piece) - len(piece.rstrip(b"\\"))
        self._tail = piece[-1:] if slashes % 2 else b""
        pieces = ESCAPED.sub(b"", piece[: len(piece) - slashes % 2]).split(b'"')
        outside = b" ".join(pieces[self._inside :: 2])
        self.count += sum(map(outside.count, (b"[", b"{", b",")))
        self._inside ^= len(pieces) % 2 == 0
