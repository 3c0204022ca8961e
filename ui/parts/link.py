"""A request as the fragment of an address, which is stored and sent nowhere; with its copy button
and its reader.

    #ask?r=REQUEST&t=12       a request's fields as compressed JSON; token 12 is opened
    #ask?r=REQUEST&b=0        without the bare base's answer beside it
    #ask?run=NAME             a recorded run, by the name of its file
    #inspect?...              the same, opened in the tab Inspect

A browser never sends the fragment (after `#`); the page reads it and fills in its form.
"""

import base64
import binascii
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlencode

import gradio as gr

from ramole_core import Ramole, RamoleError, Request, asked_fields

from .events import QUIET, open_page, script_beside, scripted

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


UNKEPT = ("owner", "trace", "prefix_ids", "without", "later_weights")
"""Fields that no link carries: the owner, and those without a field in the form."""

COPY = '<button type="button" class="copy-link" hidden>Copy link</button>'
COPIES = """
const button = element.querySelector('button');
const draw = () => { button.hidden = !props.value?.link; };
window.ramoleCopies(button, () => window.ramoleLink(props.value.link, props.value.tokens));
watch('value', draw);
draw();
"""


@dataclass(frozen=True)
class Link:
    """A link's content: a request, or the name of a recorded run."""

    request: Request | None = None
    beside: bool = True
    recorded: str = ""


def link_to(request: Request, *, beside: bool, tab: str = "ask") -> str:
    """Return the end of an address that repeats this request and opens the tab."""
    fields = {k: v for k, v in asked_fields(request).items() if k not in UNKEPT}
    said = {"r": packed(fields)} | ({} if beside else {"b": "0"})
    return f"#{tab}?{urlencode(said)}"


def link_to_recorded(name: str, *, tab: str = "ask") -> str:
    """The end of an address that opens a recorded run."""
    return f"#{tab}?{urlencode({'run': name})}"


def read_link(fragment: str) -> Link | None:
    """Read the end of an address; None where it is empty. Raises RamoleError with one sentence for
    a link that is broken."""
    said = parse_qs(str(fragment).partition("?")[2])
    if name := said.get("run", [""])[0]:
        return Link(recorded=name)
    if not (text := said.get("r", [""])[0]):
        return None
    return Link(_request(text), beside=said.get("b", ["1"])[0] != "0")


def missing(request: Request, known: Iterable[str]) -> list[str]:
    """The adapters that a request names and that are not among the known ones."""
    named: list[str] = [*(request.adapters or ()), *request.exclude]
    for _, _, *adapters in request.history:
        named += _names(adapters[0] if adapters else None)
    there = set(known)
    return list(dict.fromkeys(name for name in named if name not in there))


def absent_words(names: Sequence[str], act: str) -> str:
    """The sentence about adapters of a link that are not here; empty for none."""
    if not names:
        return ""
    said, verb = ", ".join(name[:60] for name in names), "is" if len(names) == 1 else "are"
    return (
        f"This link names {said}, which {verb} not here: an upload belongs to whoever made it. "
        f"Choose others, or {act} without."
    )


def unkept_mix_words(mix: str, act: str) -> str:
    """The sentence about kept weights of a link that are not here."""
    return (
        f"This link asks with the kept weights {mix[:60]}, which are not here: they belong to "
        f"whoever kept them. Choose others, or {act} without."
    )


def unkept_words(names: Sequence[str]) -> str:
    """The sentence about fields of a link that the form has not; empty for none."""
    if not names:
        return ""
    said, verb = ", ".join(names), "is" if len(names) == 1 else "are"
    return f"This link also sets {said}, which {verb} not on the form and not asked for here."


def check_method(ramole: Ramole, name: str, instead: str) -> None:
    """Raise RamoleError where the page lacks the method of a link."""
    if name not in {row.name for row in ramole.methods()}:
        raise RamoleError(
            f"This link asks for the method {str(name)[:60]!r}, which this page does not have; "
            f"{instead}."
        )


def addressed() -> None:
    """Let the page that is being built follow its address: tabs are in the browser's history, and a
    link opens one."""
    open_page().load(None, js=script_beside(__file__, "address.js"), **QUIET)


def copy_button(*, elem_id: str) -> gr.HTML:
    """A button that copies a link; its value is what `copies` returns, and it is hidden before."""
    return scripted({}, COPY, COPIES, elem_id=elem_id)


def copies(link: str, *, tokens: str = "") -> dict[str, str]:
    """The end of the address; `tokens`: the element whose picked token goes along."""
    return {"link": link, "tokens": tokens}


def _names(given: object) -> list[str]:
    return [str(name) for name in given] if isinstance(given, Sequence) else []


def _request(text: str) -> Request:
    fields: dict[str, Any] = unpacked(text)
    if not set(fields) <= set(KNOWN):
        raise RamoleError(UNREAD.format(why="it says things that this page does not know"))
    try:
        return Request(**fields)
    except TypeError as error:
        raise RamoleError(UNREAD.format(why="one of its fields is of another kind")) from error


KNOWN = tuple(name for name in Request.__dataclass_fields__ if name not in UNKEPT)
