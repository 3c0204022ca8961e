"""Along the answer: each adapter's effects in nats as stacked bars, and the gate's entropy as a
line, with their table twins.

Over a word or sentence effects are sums, as log probabilities are. Pure functions.
"""

import numpy as np
import plotly.graph_objects as go

from .palette import ink_of, letter_of
from .plots import GREY, Table, along, dress, inert, labels_of
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
