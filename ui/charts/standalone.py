"""Figures as one HTML page that needs no network, with plotly in it."""

from collections.abc import Iterable
from dataclasses import dataclass
from html import escape

import plotly.graph_objects as go
import plotly.io as pio

STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:72em;margin:2em auto;padding:0 1em;"
    "color:#222;background:#fff}h2{font-size:1.1em;margin:2em 0 0}p{margin:.3em 0;color:#555}"
    "pre{white-space:pre-wrap;overflow-wrap:anywhere;background:#f4f4f5;padding:.7em}"
)


@dataclass(frozen=True)
class Drawn:
    """One picture, with what stands above it."""

    title: str
    look: str
    figure: go.Figure


def page_of(title: str, facts: Iterable[tuple[str, str]], pictures: Iterable[Drawn]) -> str:
    """The page; `facts` are pairs of a label and a text, which is escaped as all text is."""
    said = "".join(f"<p>{escape(label)}</p><pre>{escape(text)}</pre>" for label, text in facts)
    parts = [_part(n, picture) for n, picture in enumerate(pictures)]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>"
        f"<h1>{escape(title)}</h1>{said}{''.join(parts)}</body></html>\n"
    )


def _part(n: int, picture: Drawn) -> str:
    figure = go.Figure(picture.figure).update_layout(font_color="#222222")
    drawn = pio.to_html(
        figure,
        config={"displayModeBar": False, "responsive": True},
        include_plotlyjs=n == 0,
        full_html=False,
        div_id=f"picture-{n}",
    )
    title = figure.layout.meta["title"] if figure.layout.meta else ""  # escaped already
    head = f"<h2>{escape(picture.title)}</h2><p>{title}. {escape(picture.look)}</p>"
    return f"<section>{head}{drawn}</section>"
