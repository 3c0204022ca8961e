"""A column's way of answering, as a request; and a comparison as the end of an address:
`#compare?q=...`, prompt and columns as packed JSON.
"""

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Annotated
from urllib.parse import parse_qs

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from ramole_core import DEFAULT_METHOD, RamoleError, Request

from ..parts.fields import whole
from ..parts.link import UNREAD, packed, unpacked

MAX_COLUMNS = 4
"""Most columns."""
STRANGE = UNREAD.format(why="it says things that this page does not know")
KNOWN = ConfigDict(extra="forbid")
Name = Annotated[str, Field(min_length=1, max_length=200)]
Names = Annotated[tuple[Name, ...], Field(max_length=32)]


@dataclass(frozen=True)
class Column:
    """The choices above a column, as gradio passes them; a link's are checked (`read_link`)."""

    __pydantic_config__ = KNOWN

    method: Name = DEFAULT_METHOD
    k: Annotated[float, Field(ge=1, le=32, multiple_of=1)] = 3
    adapters: Names = ()
    """Exactly these; none: those that are found."""
    without: Names = ()
    """Never these."""

    def here(self, there: Collection[str]) -> "tuple[str, float, list[str], list[str]]":
        """The choices, limited to existing adapters."""
        adapters = [name for name in self.adapters if name in there]
        return self.method, self.k, adapters, [name for name in self.without if name in there]

    def request(self, prompt: str, owner: str | None, *, max_new_tokens: int) -> Request:
        """The column's request; raises RamoleError with one sentence."""
        named = [name for name in self.adapters or () if name not in (self.without or ())]
        if self.adapters and not named:
            raise RamoleError(
                f"All of {', '.join(self.adapters)} are named and left out at once; take one of "
                "them off either list."
            )
        return Request(
            prompt or "",
            method=self.method,
            k=whole(self.k, "k"),
            adapters=named or None,
            exclude=() if named else tuple(self.without or ()),
            max_new_tokens=max_new_tokens,
            owner=owner,
            effects=True,
            split=None if named else False,
        )


START = (Column(), Column("base"), Column("mixture"), Column("selection"))
"""The columns at the start; the first two are in sight."""


@dataclass(frozen=True)
class ComparisonLink:
    """A comparison, as a link holds it."""

    __pydantic_config__ = KNOWN

    prompt: str
    length: Annotated[int, Field(ge=1)]
    """The longest answer, in tokens."""
    columns: Annotated[tuple[Column, ...], Field(min_length=2, max_length=MAX_COLUMNS)]

    def missing(self, known: Collection[str]) -> list[str]:
        """The adapters that are named and not among the known ones."""
        named = [name for one in self.columns for name in (*one.adapters, *one.without)]
        return list(dict.fromkeys(name for name in named if name not in known))


def link_to(asked: ComparisonLink) -> str:
    """The end of an address that repeats the comparison; raises RamoleError for a k that is not
    whole."""
    columns = [asdict(one) | {"k": whole(one.k, "k")} for one in asked.columns]
    return f"#compare?q={packed(asdict(asked) | {'columns': columns})}"


def read_link(fragment: str) -> ComparisonLink | None:
    """Read the end of an address; None where it is not for this tab. Raises RamoleError with one
    sentence for a link that is broken."""
    tab, _, said = str(fragment or "").partition("?")
    text = parse_qs(said).get("q", [""])[0]
    if tab != "#compare" or not text:
        return None
    try:
        return TypeAdapter(ComparisonLink).validate_json(json.dumps(unpacked(text)), strict=True)
    except ValidationError as error:
        raise RamoleError(STRANGE) from error
