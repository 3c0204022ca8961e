"""The axis that is the answer itself: its tokens, words or sentences from left to right.

Plotly reads some HTML in labels, so text from a model or a visitor is escaped. It thins the labels
out itself where there is no room; each begins with its number, so that none is like another.
"""

from collections.abc import Sequence
from html import escape

import plotly.graph_objects as go

from ..parts.markup import clipped

MAX_LABEL = 18
"""Characters of a label."""


def inert(text: str) -> str:
    """Text as plotly shows it letter by letter, whatever tags and entities it has."""
    return escape(text, quote=False)


def labels_of(texts: Sequence[str]) -> list[str]:
    """`3 boats`: number and text of each token, word or sentence."""
    return [f"{n} {inert(clipped(text, MAX_LABEL))}" for n, text in enumerate(texts, 1)]


def along(figure: go.Figure, *, title: str, count: int, per: str) -> go.Figure:
    """The figure with the answer along its x axis, in `count` columns, each a token, word or
    sentence; `title` is what the picture is called where it stands alone."""
    figure.update_xaxes(
        type="category",
        range=[-0.5, max(count, 1) - 0.5],
        tickangle=-90,
        tickfont_size=10,
        ticks="",
        showgrid=False,
        automargin=True,
    )
    return named(figure, title, per=per).update_layout(hoverlabel_align="left")


def named(figure: go.Figure, title: str, *, per: str | None = None) -> go.Figure:
    """The figure with a title that is drawn only where it stands alone. A script reads from `meta`
    whether a picked token is marked in it, and what its columns are."""
    return figure.update_layout(meta={"title": inert(title), "per": per})
