"""A question as the end of an address: nothing is stored, and no server is sent it.

    #ask?r=REQUEST&t=12       a request's fields as compressed JSON; token 12 is opened
    #ask?r=REQUEST&b=0        without the bare base's answer beside it
    #ask?run=NAME             a recorded run, by the name of its file

A browser keeps what stands behind `#` to itself; the page reads it and fills in its form.
"""

import base64
import binascii
import json
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qs, urlencode

from ramole_core import RamoleError, Request, asked_fields

LONGEST = 200_000
"""Characters of JSON that a link may hold."""
UNKEPT = ("owner", "trace", "prefix_ids", "without", "later_weights")
"""Fields that no link carries: whose it is, and what the form has no field for."""
UNREAD = "This link cannot be read: {why}. Ask whoever sent it to copy it again."


@dataclass(frozen=True)
class Link:
    """What a link asks for: a request, or the name of a recorded run."""

    request: Request | None = None
    beside: bool = True
    recorded: str = ""


def link_to(request: Request, *, beside: bool) -> str:
    """The end of an address that asks for this request again."""
    fields = {k: v for k, v in asked_fields(request).items() if k not in UNKEPT}
    packed = zlib.compress(json.dumps(fields, ensure_ascii=False).encode(), 9)
    said = {"r": base64.urlsafe_b64encode(packed).decode("ascii").rstrip("=")}
    return f"#ask?{urlencode(said | ({} if beside else {'b': '0'}))}"


def link_to_recorded(name: str) -> str:
    """The end of an address that opens a recorded run."""
    return f"#ask?{urlencode({'run': name})}"


def read_link(fragment: str) -> Link | None:
    """What the end of an address asks for; None where it asks for nothing. Raises RamoleError with
    one sentence for a link that is broken."""
    said = parse_qs(str(fragment).partition("?")[2])
    if name := said.get("run", [""])[0]:
        return Link(recorded=name)
    if not (packed := said.get("r", [""])[0]):
        return None
    return Link(_request(packed), beside=said.get("b", ["1"])[0] != "0")


def missing(request: Request, known: Iterable[str]) -> list[str]:
    """The adapters that a request names and that are not among the known ones."""
    named: list[str] = [*(request.adapters or ()), *request.exclude]
    for _, _, *adapters in request.history:
        named += _names(adapters[0] if adapters else None)
    there = set(known)
    return list(dict.fromkeys(name for name in named if name not in there))


def _names(given: object) -> list[str]:
    return [str(name) for name in given] if isinstance(given, Sequence) else []


def _request(packed: str) -> Request:
    try:
        raw = base64.urlsafe_b64decode(packed + "=" * (-len(packed) % 4))
        fields = json.loads(_unpacked(raw))
    except (binascii.Error, zlib.error, ValueError) as error:
        raise RamoleError(UNREAD.format(why="it is cut off or changed")) from error
    if not isinstance(fields, dict) or not set(fields) <= set(KNOWN):
        raise RamoleError(UNREAD.format(why="it says things that this page does not know"))
    try:
        return Request(**fields)
    except TypeError as error:
        raise RamoleError(UNREAD.format(why="one of its fields is of another kind")) from error


def _unpacked(raw: bytes) -> str:
    """The text of some compressed bytes, which may not grow beyond measure."""
    opened = zlib.decompressobj()
    text = opened.decompress(raw, LONGEST)
    if opened.unconsumed_tail or not opened.eof:
        raise ValueError("too long, or cut off")
    return text.decode("utf-8")


KNOWN = tuple(name for name in Request.__dataclass_fields__ if name not in UNKEPT)
