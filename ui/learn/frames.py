"""The frame of every picture: a caption, a box that scrolls by itself, a table twin folded away."""

from collections.abc import Iterable, Sequence

from ..charts.palette import INKS
from ..parts.markup import escaped, table_html

ABOVE, BELOW = INKS[4].colour, INKS[5].colour
"""Blue above zero, vermillion below."""


def figure(picture: str, caption: str, *, twin: str = "") -> str:
    """A picture with what it shows in a sentence; `twin` has the same numbers as a table."""
    more = f"<details><summary>The same as a table</summary>{twin}</details>" if twin else ""
    return f'<figure>{picture}<figcaption class="quiet">{caption}</figcaption>{more}</figure>'


def table(label: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Cells of HTML under their heads; the first of each row names it."""
    return box(label, table_html(heads, rows), kind="rows")


def box(label: str, content: str, *, kind: str = "") -> str:
    """A region that the keyboard can scroll."""
    return (
        f'<div class="box {kind}" tabindex="0" role="region" aria-label="{escaped(label)}">'
        f"{content}</div>"
    )


def bar(share: float, colour: str, *, mark: float | None = None) -> str:
    """A share of the width, with a tick at another one; the number stands beside it in words."""
    tick = "" if mark is None else f'<b style="left:{100 * mark:.1f}%"></b>'
    return (
        f'<span class="bar" aria-hidden="true"><i style="width:{100 * min(max(share, 0), 1):.1f}%;'
        f'background:{colour}"></i>{tick}</span>'
    )
