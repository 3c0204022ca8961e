"""One setting's scores as a picture: a dot for the mean, a line for the interval, a row a method.

The table of all settings is its twin. Method names stand on the axis, so colour is never the only
cue; controls are grey and hollow.
"""

import plotly.graph_objects as go

from ..charts.palette import INKS, NOBODY
from ..charts.plots import dress
from .scores import Evaluation

CONTROLS = ("base", "perfect", "uniform_router", "random_router")
ORDER = (4, 5, 2, 0, 3, 1)
"""Okabe-Ito's colours that read as a dot on white and on black, the best to tell apart first."""


def inks_of(methods: list[str]) -> dict[str, str]:
    """The same colour for a method in every setting; grey for controls."""
    others = [name for name in methods if name not in CONTROLS]
    colours = {n: INKS[ORDER[i % len(ORDER)]].colour for i, n in enumerate(others)}
    return {name: colours.get(name, NOBODY.colour) for name in methods}


def scores_figure(found: Evaluation, setting: str) -> go.Figure:
    """The setting's scores, first method on top."""
    scores, colours = found.cells[setting], inks_of(list(found.methods))
    figure = go.Figure()
    for name, span in scores.items():
        (low, high), hollow, colour = span.ends, name in CONTROLS, colours[name]
        figure.add_scatter(
            x=[span.mean],
            y=[name],
            mode="markers",
            marker={"size": 11, "color": colour, "symbol": f"circle{'-open' if hollow else ''}"}
            | {"line": {"width": 2 if hollow else 0, "color": colour}},
            error_x={"type": "data", "symmetric": False, "array": [high - span.mean]}
            | {"arrayminus": [span.mean - low], "color": colour, "thickness": 2, "width": 0},
            hovertemplate=f"{name}: {span.mean:.1f} [{low:.1f}, {high:.1f}]<extra></extra>",
            showlegend=False,
        )
    figure.update_xaxes(title="mean score", rangemode="tozero")
    figure.update_yaxes(categoryorder="array", categoryarray=list(scores)[::-1], automargin=True)
    return dress(figure, height=80 + 30 * len(scores), margin=(8, 16, 8, 44))
