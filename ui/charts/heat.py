"""Maps over the answer: tokens to the right, layers or modules upwards; one expert, or the leader.

Pure functions from arrays to plotly figures and tables. Blank: the adapter has nothing there.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from .grid import NOBODY_LEADS, NOBODY_THERE, Grid, leaders
from .palette import NOBODY, ink_of, letter_of, scale_of
from .plots import SHORT, Table, along, bounds_of, cells_of, dress, inert, labels_of

WINNER = -1
"""In place of an expert: the leading one."""
MIN_HEIGHT = 270
"""Least height of a map without its labels, in pixels."""
GAPS = 80
"""Most columns with gaps between squares."""
BAR = {"thickness": 10, "len": 1.0, "y": 0.5, "tickfont": {"size": 10}, "outlinewidth": 0}


@dataclass(frozen=True)
class HeatMap:
    """One cut through a grid."""

    cells: np.ndarray
    """[n, row, k], nan where the adapter has nothing."""
    rows: tuple[int, ...] | tuple[str, ...]
    """Layers, or names of modules."""
    where: str
    """In words, of all of it: `all modules`, `layer 3`, `q_proj`."""
    upwards: str
    """`layer` or `module`."""


def whole(grid: Grid) -> HeatMap:
    """Layers x tokens, the mean over the modules."""
    return HeatMap(grid.over_modules, grid.layers, "mean over the modules", "layer")


def one_layer(grid: Grid, layer: int) -> HeatMap:
    """Modules x tokens in one layer, by its number."""
    found = grid.values[:, grid.layers.index(layer)]
    return HeatMap(found, grid.modules, f"layer {layer}", "module")


def one_module(grid: Grid, module: str) -> HeatMap:
    """Layers x tokens in one module, by its name."""
    return HeatMap(grid.values[:, :, grid.modules.index(module)], grid.layers, module, "layer")


def map_figure(grid: Grid, part: HeatMap, expert: int) -> go.Figure:
    """One expert's values, or with `WINNER` the leading experts."""
    who = ""
    if expert == WINNER:
        cells, said = _winners(grid, part), f"largest {grid.what}"
        adapters = zip(map(letter_of, grid.places), grid.experts, strict=True)
        who = ": " + ", ".join(map(" ".join, adapters))
    else:
        cells, said = _values(grid, part, expert), f"{grid.what} of {grid.experts[expert]}"
    names = [row if isinstance(row, int) else inert(SHORT.get(row, row)) for row in part.rows]
    gap = 1 if len(part.cells) <= GAPS else 0
    figure = go.Figure()
    figure.add_heatmap(x=labels_of(grid.spans.texts), y=names, xgap=gap, ygap=1, **cells)
    figure.update_yaxes(title=part.upwards, tickfont_size=10)
    height = 110 + max(9 * len(part.rows), MIN_HEIGHT)
    dress(figure, height=height, grid=False, margin=(48, 8, 8, 30))
    title = f"{said[0].upper()}{said[1:]}, {part.where}{who}"
    return along(figure, title=title, count=len(part.cells), per=grid.per)


def map_table(grid: Grid, part: HeatMap, expert: int) -> Table:
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


def _values(grid: Grid, part: HeatMap, expert: int) -> dict[str, Any]:
    cells, place = part.cells[..., expert].T, grid.places[expert]
    low, high = bounds_of(cells[np.isfinite(cells)])
    ticks = sorted({low, 0.0, high / 2, high})
    return {
        "z": cells_of(cells, np.isfinite(cells), absent=None),
        "zmin": low,
        "zmax": high,
        "colorscale": scale_of(place, low=low, high=high),
        "colorbar": {**BAR, "tickvals": ticks, "ticktext": [f"{tick:.3g}" for tick in ticks]},
        "meta": inert(f"{letter_of(place)} {grid.experts[expert]}"),
        "hovertemplate": f"%{{meta}}<br>{part.upwards} %{{y}}, {grid.per} %{{x}}<br>"
        f"{grid.what} %{{z:.4f}}<extra></extra>",
    }


def _winners(grid: Grid, part: HeatMap) -> dict[str, Any]:
    """Colours of the experts, a step for each; grey where none leads."""
    led, k = leaders(part.cells).T, len(grid.experts)
    inks = [NOBODY, *(ink_of(place) for place in grid.places)]
    letters = ["none", *map(letter_of, grid.places)]
    shown = cells_of(led + 1, led != NOBODY_THERE, absent=None)
    return {
        "z": [[None if cell is None else int(cell) for cell in row] for row in shown],
        "text": [["" if cell is None else letters[int(cell)] for cell in row] for row in shown],
        "zmin": -0.5,
        "zmax": k + 0.5,
        "colorscale": [
            [(n + up) / (k + 1), ink.colour] for n, ink in enumerate(inks) for up in (0, 1)
        ],
        "colorbar": {**BAR, "tickvals": list(range(k + 1)), "ticktext": letters},
        "hovertemplate": f"{part.upwards} %{{y}}, {grid.per} %{{x}}<br>leads: %{{text}}"
        "<extra></extra>",
    }
