"""Maps over the answer: tokens to the right, layers or modules upwards; one expert, or the leader.

Pure functions from arrays to plotly figures and tables. Blank: the adapter has nothing there.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from .grid import NOBODY_LEADS, NOBODY_THERE, Grid, leaders
from .palette import NOBODY, ink_of, letter_of, scale_of
from .plots import SHORT, Table, along, bounds_of, cells_of, dress, inert, labels_of

WINNER = -1
"""In place of an expert: whoever leads."""
LOWEST = 270
"""Pixels of a map without its labels."""
GAPS = 80
"""Columns up to which squares stand apart."""


@dataclass(frozen=True)
class Map:
    """One cut through a grid."""

    cells: np.ndarray
    """[n, row, k], nan where the adapter has nothing."""
    rows: tuple[int, ...] | tuple[str, ...]
    """Layers, or names of modules."""
    where: str
    """In words, of all of it: `all modules`, `layer 3`, `q_proj`."""
    upwards: str
    """`layer` or `module`."""


def whole(grid: Grid) -> Map:
    """Layers x tokens, the mean over the modules."""
    return Map(grid.over_modules, grid.layers, "mean over the modules", "layer")


def one_layer(grid: Grid, layer: int) -> Map:
    """Modules x tokens in one layer, by its number."""
    found = grid.values[:, grid.layers.index(layer)]
    return Map(found, grid.modules, f"layer {layer}", "module")


def one_module(grid: Grid, module: str) -> Map:
    """Layers x tokens in one module, by its name."""
    return Map(grid.values[:, :, grid.modules.index(module)], grid.layers, module, "layer")


def map_figure(grid: Grid, part: Map, expert: int) -> go.Figure:
    """One expert's values, or with `WINNER` the leading experts."""
    if expert == WINNER:
        figure, said = _winners(grid, part), f"largest {grid.what}"
        adapters = zip(map(letter_of, grid.places), grid.experts, strict=True)
        who = ": " + ", ".join(map(" ".join, adapters))
    else:
        figure, said, who = (
            _values(grid, part, expert),
            f"{grid.what} of {grid.experts[expert]}",
            "",
        )
    gap = 1 if len(part.cells) <= GAPS else 0
    figure.update_traces(xgap=gap, ygap=1)
    figure.update_yaxes(title=part.upwards, tickfont_size=10)
    height = 110 + max(9 * len(part.rows), LOWEST)
    dress(figure, height=height, grid=False, margin=(48, 8, 8, 30))
    title = f"{said[0].upper()}{said[1:]}, {part.where}{who}"
    return along(figure, title=title, count=len(part.cells), per=grid.per)


def map_table(grid: Grid, part: Map, expert: int) -> Table:
    """The twin of `map_figure`: a row for each token, a column for each layer or module; an empty
    cell is a blank."""
    if expert == WINNER:
        letters = {NOBODY_THERE: "", NOBODY_LEADS: "none"}
        letters |= {e: letter_of(place) for e, place in enumerate(grid.places)}
        found = [[letters[int(e)] for e in row] for row in leaders(part.cells)]
    else:
        cells = part.cells[..., expert]
        found = cells_of(cells, np.isfinite(cells), absent="")
    headers = ["#", grid.per, *(f"{part.upwards} {row}" for row in part.rows)]
    rows = enumerate(zip(grid.spans.texts, found, strict=True), 1)
    return headers, [[n, text, *cells] for n, (text, cells) in rows]


def _values(grid: Grid, part: Map, expert: int) -> go.Figure:
    cells, place = part.cells[..., expert].T, grid.places[expert]
    low, high = bounds_of(cells[np.isfinite(cells)])
    figure = go.Figure()
    figure.add_heatmap(
        z=cells_of(cells, np.isfinite(cells), absent=None),
        x=labels_of(grid.spans.texts),
        y=_names(part.rows),
        zmin=low,
        zmax=high,
        colorscale=scale_of(place, low=low, high=high),
        colorbar=_bar(low, high),
        meta=inert(f"{letter_of(place)} {grid.experts[expert]}"),
        hovertemplate=f"%{{meta}}<br>{part.upwards} %{{y}}, {grid.per} %{{x}}<br>"
        f"{grid.what} %{{z:.4f}}<extra></extra>",
    )
    return figure


def _winners(grid: Grid, part: Map) -> go.Figure:
    """Colours of the experts, a step for each; grey where none leads."""
    led, k = leaders(part.cells).T, len(grid.experts)
    inks = [NOBODY, *(ink_of(place) for place in grid.places)]
    letters = ["none", *map(letter_of, grid.places)]
    steps = [[(n + up) / (k + 1), ink.colour] for n, ink in enumerate(inks) for up in (0, 1)]
    z, there = led + 1, led != NOBODY_THERE
    shown = cells_of(z, there, absent=None)
    figure = go.Figure()
    figure.add_heatmap(
        z=[[None if cell is None else int(cell) for cell in row] for row in shown],
        text=[["" if cell is None else letters[int(cell)] for cell in row] for row in shown],
        x=labels_of(grid.spans.texts),
        y=_names(part.rows),
        zmin=-0.5,
        zmax=k + 0.5,
        colorscale=steps,
        colorbar={**_BAR, "tickvals": list(range(k + 1)), "ticktext": letters},
        hovertemplate=f"{part.upwards} %{{y}}, {grid.per} %{{x}}<br>leads: %{{text}}"
        "<extra></extra>",
    )
    return figure


_BAR = {"thickness": 10, "len": 1.0, "y": 0.5, "tickfont": {"size": 10}, "outlinewidth": 0}


def _bar(low: float, high: float) -> dict[str, object]:
    ticks = sorted({low, 0.0, high / 2, high})
    return {**_BAR, "tickvals": ticks, "ticktext": [f"{tick:.3g}" for tick in ticks]}


def _names(rows: Sequence[int] | Sequence[str]) -> list[int | str]:
    return [row if isinstance(row, int) else inert(SHORT.get(row, row)) for row in rows]
