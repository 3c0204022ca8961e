"""A column's way of answering, as a request."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from ramole_core import DEFAULT_METHOD, RamoleError, Request

MAX_COLUMNS = 4
"""Columns."""


@dataclass(frozen=True)
class Column:
    """The choices above a column, as gradio hands them over."""

    method: str = DEFAULT_METHOD
    k: float = 3
    adapters: Sequence[str] = ()
    """Exactly these; none: those that are found."""
    without: Sequence[str] = ()
    """Never these."""

    def here(self, there: Collection[str]) -> "tuple[str, float, list[str], list[str]]":
        """The choices, limited to existing adapters."""
        adapters = [name for name in self.adapters if name in there]
        return self.method, self.k, adapters, [name for name in self.without if name in there]

    def request(self, prompt: str, owner: str | None, *, max_new_tokens: float) -> Request:
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
            k=int(self.k),
            adapters=named or None,
            exclude=() if named else tuple(self.without or ()),
            max_new_tokens=int(max_new_tokens),
            owner=owner,
            effects=True,
            split=None if named else False,
        )


START = (Column(), Column("base"), Column("mixture"), Column("selection"))
"""The columns at the start; the first two are in sight."""
