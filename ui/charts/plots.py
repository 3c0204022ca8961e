"""One token of a trace as pictures, with their table twin, and what all pictures share.

Plotly reads some HTML in labels, so text from a model or a visitor is escaped. It thins the labels
out itself where there is no room; each begins with its number, so that all differ.
"""

from collections.abc import Sequence
from html import escape

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ..parts.markup import clipped
from .palette import letter_of, scale_of
from .run import CONTRIBUTION, WEIGHT, Run

GREY = "#808080"
FAINT = "rgba(128,128,128,0.25)"
SHORT = {
    "q_proj": "q",
    "k_proj": "k",
    "v_proj": "v",
    "o_proj": "o",
    "gate_proj": "gate",
    "up_proj": "up",
    "down_proj": "down",
}
"""Module names that a narrow plot has room for."""
TITLES = 48
"""Characters of the adapters' names that have room over one token's maps, all together."""
MAX_LABEL = 18
"""Characters of a label."""


Table = tuple[list[str], list[list[str | float]]]
"""Headers and rows."""


def token_figure(run: Run, index: int, *, what: str = CONTRIBUTION) -> go.Figure:
    """One token's contributions (or weights): a heat map layer x module for each expert, blank
    where it lacks the module; one colour scale for all."""
    trace, present = run.answer.trace, run.present[index]
    assert trace is not None
    values = (run.contribution if what == CONTRIBUTION else run.gates)[index]
    k, (low, high) = len(run.experts), bounds_of(np.where(present, values, 0))
    experts = list(enumerate(zip(run.experts, run.places, strict=True)))
    figure = make_subplots(
        rows=1,
        cols=k,
        shared_yaxes=True,
        horizontal_spacing=0.02 if k > 3 else 0.04,
        subplot_titles=[
            f"<b>{letter_of(place)}</b> {inert(clipped(name, max(TITLES // k, 4)))}"
            for _, (name, place) in experts
        ],
    )
    names = [SHORT.get(module, module) for module in trace.modules]
    for e, (name, place) in experts:
        figure.add_heatmap(
            z=cells_of(values[..., e], present[..., e], absent=None),
            x=names,
            y=list(trace.layers),
            zmin=low,
            zmax=high,
            colorscale=scale_of(place, low=low, high=high),
            showscale=False,
            xgap=1,
            ygap=1,
            meta=inert(name),
            hovertemplate=f"%{{meta}}<br>layer %{{y}}, %{{x}}: {what} %{{z:.4f}}<extra></extra>",
            row=1,
            col=e + 1,
        )
    figure.update_annotations(font_size=12)
    figure.update_xaxes(tickangle=-90, tickfont_size=10)
    figure.update_yaxes(tickfont_size=10)
    figure.update_yaxes(title="layer", col=1)
    return dress(figure, height=380, grid=False)


def bounds_of(values: np.ndarray) -> tuple[float, float]:
    """The bounds of a colour scale: 0, and the extreme values on either side."""
    if not values.size:
        return 0.0, 1.0
    return min(0.0, float(values.min())), float(values.max()) if values.max() > 0 else 1.0


def cells_of(values: np.ndarray, present: np.ndarray, *, absent: str | None) -> list:
    """The values with four digits, in lists; `absent` where no adapter is present."""
    cells = np.round(values.astype(np.float64), 4).astype(np.object_)
    cells[~present] = absent
    return cells.tolist()


def token_table(run: Run, index: int) -> Table:
    """The twin of `token_figure`: one row for each layer and module, with the contribution and the
    weight of each expert, or `absent`."""
    trace, present = run.answer.trace, run.present[index]
    assert trace is not None
    parts = {CONTRIBUTION: run.contribution[index], WEIGHT: run.gates[index]}
    headers = ["layer", "module"]
    headers += [f"{letter_of(place)} {what}" for what in parts for place in run.places]
    told = [cells_of(values, present, absent="absent") for values in parts.values()]
    rows: list[list[str | float]] = [
        [layer, module, *(cell for cells in told for cell in cells[i][j])]
        for i, layer in enumerate(trace.layers)
        for j, module in enumerate(trace.modules)
    ]
    return headers, rows


def dress(
    figure: go.Figure,
    *,
    height: int,
    margin: tuple[int, int, int, int] = (46, 12, 34, 46),
    grid: bool = True,
) -> go.Figure:
    """Style the figure as the page is; `margin` is left, right, top and bottom, in pixels.

    Backgrounds are left clear and text is a grey that reads on white and on black, so that one
    figure serves the light and the dark page.
    """
    left, right, top, bottom = margin
    figure.update_layout(
        height=height,
        margin={"l": left, "r": right, "t": top, "b": bottom},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": GREY, "size": 12, "family": "system-ui, sans-serif"},
        dragmode=False,
    )
    lines = {"gridcolor": FAINT, "zeroline": False, "linecolor": FAINT}
    figure.update_xaxes(**lines, showgrid=grid, fixedrange=True)
    figure.update_yaxes(**lines, showgrid=grid, fixedrange=True)
    return figure


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
