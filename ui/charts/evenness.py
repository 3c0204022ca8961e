"""The gate's entropy along the answer, token by token. Pure functions."""

import numpy as np
import plotly.graph_objects as go

from .along import along, labels_of
from .plots import GREY, Table, dress
from .run import Run, entropy
from .spans import Spans, spans_of


def evenness(run: Run, spans: Spans) -> np.ndarray:
    """Entropy of the gate in nats, the mean over the tokens of each group."""
    each, at = entropy(run.gates, run.present), np.asarray(spans.at, dtype=np.int64)
    count = np.bincount(at, minlength=len(spans.texts))
    return np.bincount(at, weights=each, minlength=len(spans.texts)) / np.maximum(count, 1)


def evenness_figure(run: Run, *, per: str = "token") -> go.Figure:
    """The entropy along the answer, with a line where all experts weigh the same."""
    spans, k = spans_of(run.pieces[: len(run.gates)], per), len(run.experts)
    values = evenness(run, spans)
    figure = go.Figure()
    figure.add_scatter(
        x=labels_of(spans.texts),
        y=np.round(values, 4).tolist(),
        mode="lines+markers",
        line={"color": "#0072B2", "width": 1.5},
        marker={"size": 5 if len(values) < 100 else 3},
        hovertemplate=f"{per} %{{x}}<br>entropy %{{y:.3f}} nats<extra></extra>",
        showlegend=False,
    )
    if k > 1:
        figure.add_hline(
            y=float(np.log(k)),
            line={"dash": "dash", "color": GREY},
            annotation_text=f"all {k} even: {np.log(k):.2f}",
            annotation_position="bottom right",
        )
    top = 1.08 * max(float(np.log(k)), float(values.max(initial=0.0)), 0.1)
    figure.update_yaxes(title="entropy (nats)", range=[0, top])
    dress(figure, height=290, margin=(48, 8, 8, 30))
    return along(figure, title="Entropy of the gate", count=len(values), per=per)


def evenness_table(run: Run, *, per: str = "token") -> Table:
    """The twin of `evenness_figure`."""
    spans = spans_of(run.pieces[: len(run.gates)], per)
    rows = enumerate(zip(spans.texts, evenness(run, spans), strict=True), 1)
    return ["#", per, "entropy (nats)"], [[n, text, round(float(e), 4)] for n, (text, e) in rows]
