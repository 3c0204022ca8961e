"""Tables that everyone can read: caption, scopes, a scroll box of their own, intervals drawn small.

Every word comes from a file, so each passes `escaped` (see `ui/parts/markup.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ..parts.markup import escaped
from .values import Span


@dataclass(frozen=True)
class Scale:
    """Where a whisker's numbers lie: from `low` to `high`, with a tick at `mark`."""

    low: float
    high: float
    mark: float | None = None

    def at(self, value: float) -> float:
        """The place in percent, kept within the scale."""
        width = self.high - self.low
        return min(max(100 * (value - self.low) / width, 0), 100) if width > 0 else 50


def scale_over(spans: Sequence[Span], *, mark: float | None = None, zero: bool = False) -> Scale:
    """The smallest scale that holds all intervals, with a little air; from zero if asked."""
    ends = [end for s in spans for end in (s.mean, s.low, s.high) if end is not None]
    ends += [] if mark is None else [mark]
    if not ends:
        return Scale(0, 1, mark)
    low, high = min(ends), max(ends)
    air = 0.06 * (high - low) or 0.5
    return Scale(0 if zero and low >= 0 else low - air, high + air, mark)


def whisker(span: Span, scale: Scale) -> str:
    """The interval as a line with a dot at its mean; the numbers stand beside it in words."""
    low = span.mean if span.low is None else span.low
    high = span.mean if span.high is None else span.high
    left, right = scale.at(low), scale.at(high)
    mark = (
        ""
        if scale.mark is None
        else f'<i class="mark" style="left:{scale.at(scale.mark):.1f}%"></i>'
    )
    return (
        f'<span class="rm-whisker" aria-hidden="true">{mark}'
        f'<i class="line" style="left:{left:.1f}%;width:{right - left:.1f}%"></i>'
        f'<i class="dot" style="left:{scale.at(span.mean):.1f}%"></i></span>'
    )


def spoken(span: Span | None, *, digits: int = 1, signed: bool = False) -> str:
    """`61.2 [58.0, 64.1]`; the interval is quieter than the number."""
    if span is None:
        return '<span class="rm-none">–</span>'
    sign = "+" if signed else ""
    mean = f"{span.mean:{sign}.{digits}f}".replace("-", "−")
    if span.low is None or span.high is None:
        return f'<span class="mean">{mean}</span>'
    ends = f"[{span.low:{sign}.{digits}f}, {span.high:{sign}.{digits}f}]".replace("-", "−")
    return f'<span class="mean">{mean}</span> <span class="ends">{ends}</span>'


def cell(
    span: Span | None,
    *,
    scale: Scale | None = None,
    digits: int = 1,
    signed: bool = False,
    best: bool = False,
    emphasis: bool = False,
) -> str:
    """A number with its interval, and the interval drawn below where there is a scale."""
    if span is None:
        return '<td class="number none"><span aria-label="not measured">–</span></td>'
    drawn = whisker(span, scale) if scale else ""
    words = spoken(span, digits=digits, signed=signed)
    if best:
        words = f'<strong>{words}<span class="sr"> (the best)</span></strong>'
    elif emphasis:
        words = f"<strong>{words}</strong>"
    return f'<td class="number{" best" if best else ""}">{words}{drawn}</td>'


def plain(words: object, *, kind: str = "") -> str:
    """A cell of words."""
    return f'<td class="{kind}">{escaped(words)}</td>'


def head(words: object, *, below: str = "", scope: str = "row", kind: str = "") -> str:
    """A heading of a row or a column, with a quieter line below it."""
    more = f'<span class="below">{escaped(below)}</span>' if below else ""
    return f'<th scope="{scope}" class="{kind}">{breakable(words)}{more}</th>'


def breakable(words: object) -> str:
    """Escaped, and free to break after an underscore or a slash."""
    return escaped(words).replace("_", "_<wbr>").replace("/", "/<wbr>")


def box(caption: str, heads: Sequence[str], rows: str, *, kind: str = "", below: str = "") -> str:
    """A table in a box that scrolls by itself; `heads` and `rows` are HTML, the caption is text.

    `rows` may hold several `<tbody>`; else one is put around it.
    """
    body = rows if rows.startswith("<tbody") else f"<tbody>{rows}</tbody>"
    note = f'<p class="rm-under">{below}</p>' if below else ""
    return (
        f'<div class="rm-table {kind}"><div class="rm-scroll" tabindex="0" role="region" '
        f'aria-label="{escaped(caption)}"><table><caption><span>{escaped(caption)}</span></caption>'
        f"<thead><tr>{''.join(heads)}</tr></thead>{body}</table></div>{note}</div>"
    )


def group(title: str, rows: str, *, columns: int) -> str:
    """Rows under a title of their own; without a title, the rows alone."""
    heading = (
        f'<tr class="group"><th scope="rowgroup" colspan="{columns}"><span>{escaped(title)}</span>'
        "</th></tr>"
    )
    return f"<tbody>{heading if title else ''}{rows}</tbody>"


def verdict(reached: bool | None) -> str:
    """Reached or not, in words and in colour."""
    kind, words = {
        True: ("well", "reached"),
        False: ("ill", "not reached"),
        None: ("open", "not known yet"),
    }[reached]
    return f'<span class="rm-verdict-word {kind}">{words}</span>'
