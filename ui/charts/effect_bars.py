"""Each adapter's effects along the answer, in nats: stacked bars, and their table twin.

Over a word or sentence effects are sums, as log probabilities are. Pure functions.
"""

import numpy as np
import plotly.graph_objects as go

from .along import along, inert, labels_of
from .palette import ink_of, letter_of
from .plots import GREY, Table, dress
from .run import Run
from .spans import Spans, spans_of

UNMEASURED = "What each adapter changed was not measured in this run."


def effect_figure(run: Run, *, per: str = "token") -> go.Figure:
    """A column for each token, word or sentence: upwards what made it likelier, downwards what made
    it less likely, and a mark at their sum; empty where effects were not measured."""
    spans, effects = _grouped(run, per)
    figure, labels = go.Figure(), labels_of(spans.texts)
    for e, (name, place) in enumerate(zip(run.experts, run.places, strict=True)):
        figure.add_bar(
            x=labels,
            y=np.round(effects[:, e].astype(float), 3).tolist(),
            marker={"color": ink_of(place).colour},
            name=inert(f"{letter_of(place)} {name}"),
            meta=inert(f"{letter_of(place)} {name}"),
            hovertemplate=f"%{{meta}}<br>{per} %{{x}}<br>%{{y:+.2f}} nats<extra></extra>",
        )
    figure.add_scatter(
        x=labels,
        y=np.round(effects.sum(-1).astype(float), 3).tolist(),
        mode="markers",
        marker={"symbol": "line-ew", "size": 9, "line": {"color": GREY, "width": 2}},
        name="all together",
        hovertemplate=f"{per} %{{x}}<br>all together %{{y:+.2f}} nats<extra></extra>",
    )
    if run.effects is None:
        figure.add_annotation(text=UNMEASURED, xref="paper", yref="paper", showarrow=False)
    figure.update_layout(barmode="relative", bargap=0.15, legend={"orientation": "h", "y": 1.12})
    figure.update_yaxes(title="nats")
    dress(figure, height=330, margin=(48, 8, 40, 30))
    figure.update_yaxes(zeroline=True, zerolinecolor=GREY, zerolinewidth=1)
    return along(figure, title="Effect of each adapter", count=len(spans.texts), per=per)


def effect_table(run: Run, *, per: str = "token") -> Table:
    """The twin of `effect_figure`, with the log probabilities that the effects lie between."""
    spans, effects = _grouped(run, per)
    answer = run.answer
    headers = ["#", per, "base", *(f"{letter_of(place)}, effect" for place in run.places), "run"]
    if answer.base_logprob is None or answer.logprob is None:
        return headers, []
    n = len(spans.at)
    base, whole = (_sums(v[:n, None], spans)[:, 0] for v in (answer.base_logprob, answer.logprob))
    rows: list[list[str | float]] = [
        [i + 1, text, *(round(float(one), 3) for one in (base[i], *effects[i], whole[i]))]
        for i, text in enumerate(spans.texts)
    ]
    return headers, rows


def _grouped(run: Run, per: str) -> tuple[Spans, np.ndarray]:
    """Effects [group, k]."""
    effects = run.effects
    if effects is None:
        effects = np.zeros((0, len(run.experts)), np.float32)
    spans = spans_of(run.pieces[: len(effects)], per)
    return spans, _sums(effects, spans)


def _sums(values: np.ndarray, spans: Spans) -> np.ndarray:
    """[token, ...] -> [group, ...]."""
    found = np.zeros((len(spans.texts), values.shape[1]), np.float64)
    np.add.at(found, np.asarray(spans.at, np.int64), values)
    return found
