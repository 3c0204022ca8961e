"""Downloads: tables as csv, and all pictures as one HTML page."""

from collections.abc import Iterable
from html import escape
from pathlib import Path

import plotly.graph_objects as go
import plotly.io as pio

from ..charts.loads import loads_figure, titles_of
from ..charts.plots import Table
from ..parts.asked import decoding_words, mixed_words
from ..parts.downloads import fresh_folder, write_csv
from .cuts import CUTS, RunPair, RunView
from .layout import AGAINST
from .sources import origin

TitledFigure = tuple[str, str, go.Figure]
"""Title, what to look for, the picture."""
STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:72em;margin:2em auto;padding:0 1em;"
    "color:#222;background:#fff}h2{font-size:1.1em;margin:2em 0 0}p{margin:.3em 0;color:#555}"
    "pre{white-space:pre-wrap;overflow-wrap:anywhere;background:#f4f4f5;padding:.7em}"
)


def write_table(name: str, table: Table, *, into: Path | None = None) -> Path:
    """A picture's table as `ramole-NAME.csv`, in a new folder."""
    headers, rows = table
    return write_csv(fresh_folder(into) / f"ramole-{name}.csv", headers, rows)


def write_page(seen: RunView, both: RunPair | None = None, *, into: Path | None = None) -> Path:
    """Every picture on a page of its own; `both`: with the comparison of two runs."""
    run = seen.run
    named = "; ".join(titles_of([seen.side], plain=True).values())
    facts = [
        ("Run", origin(run)),
        ("Prompt", run.request.prompt),
        ("Method", f"{mixed_words(run.request)}; {decoding_words(run.request)}"),
        ("Adapters", named),
        ("Answer", run.answer.text),
    ]
    drawn = [(cut.title, cut.look, cut.figure(seen)) for cut in CUTS]
    if both is not None:
        figure = loads_figure(both.sides, what=both.what)
        drawn.append(("Loads of both runs", AGAINST, figure))
    path = fresh_folder(into) / "ramole-inspect.html"
    path.write_text(page_of("RAMoLE: one answer, taken apart", facts, drawn), "utf-8")
    return path


def page_of(title: str, facts: Iterable[tuple[str, str]], pictures: Iterable[TitledFigure]) -> str:
    """A page that needs no network, with plotly in it; `facts` are pairs of a label and a text,
    which is escaped as all text is."""
    said = "".join(f"<p>{escape(label)}</p><pre>{escape(text)}</pre>" for label, text in facts)
    parts = [_part(n, *picture) for n, picture in enumerate(pictures)]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>"
        f"<h1>{escape(title)}</h1>{said}{''.join(parts)}</body></html>\n"
    )


def _part(n: int, title: str, look: str, figure: go.Figure) -> str:
    figure = go.Figure(figure).update_layout(font_color="#222222")
    drawn = pio.to_html(
        figure,
        config={"displayModeBar": False, "responsive": True},
        include_plotlyjs=n == 0,
        full_html=False,
        div_id=f"picture-{n}",
    )
    named = figure.layout.meta["title"] if figure.layout.meta else ""  # escaped already
    head = f"<h2>{escape(title)}</h2><p>{named}. {escape(look)}</p>"
    return f"<section>{head}{drawn}</section>"
