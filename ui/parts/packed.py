"""Plain data packed for the end of an address, and read back as a stranger's."""

import base64
import binascii
import json
import zlib
from collections.abc import Mapping

from ramole_core import RamoleError

MAX_CHARACTERS = 200_000
"""Characters of JSON that a link may hold."""
UNREAD = "This link cannot be read: {why}. Ask whoever sent it to copy it again."


def packed(fields: Mapping[str, object]) -> str:
    """The fields as compressed JSON in letters that an address may have."""
    small = zlib.compress(json.dumps(fields, ensure_ascii=False).encode(), 9)
    return base64.urlsafe_b64encode(small).decode("ascii").rstrip("=")


def unpacked(text: str) -> dict[str, object]:
    """Unpack the fields; raises RamoleError with one sentence for what is none."""
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        fields = json.loads(_opened(raw))
    except (binascii.Error, zlib.error, ValueError, RecursionError) as error:
        raise RamoleError(UNREAD.format(why="it is cut off or changed")) from error
    if not isinstance(fields, dict):
        raise RamoleError(UNREAD.format(why="it says things that this page does not know"))
    return fields


def _opened(raw: bytes) -> str:
    """The text of some compressed bytes, which may not grow beyond measure."""
    opened = zlib.decompressobj()
    text = opened.decompress(raw, MAX_CHARACTERS)
    if opened.unconsumed_tail or not opened.eof:
        raise ValueError("too long, or cut off")
    return text.decode("utf-8")
