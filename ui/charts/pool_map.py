"""The pool as pictures: adapters in two dimensions, and the similarity of each two.

Pure functions from vectors to figures. Names are untrusted, and plotly reads some markup in labels,
so each passes `label_of`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from ..parts.markup import clipped
from .palette import INKS
from .plots import dress, inert

KINDS = {
    "sample": (INKS[4].colour, "circle", "sample pool"),
    "shared": (INKS[2].colour, "diamond", "uploaded, for everyone"),
    "yours": (INKS[0].colour, "square", "yours"),
}
"""Colour, mark and words of each kind, so that colour is not the only cue."""
PROMPT = INKS[5].colour
MAX_LABEL = 28
"""Characters of a name in a picture."""
LETTER, PICTURE, PHONE = 6.6, np.array([640.0, 390.0]), np.array([250.0, 390.0])
"""Pixels of a letter of a label, which most have less of, and of the map, on a phone too."""
FAR = 1e4
WIDE_ALONE = "rgb(1, 1, 1)"
"""The colour by which the style sheet leaves a label away on a phone; the theme has another one."""
SIDES = {
    "top center": (0, -1),
    "bottom center": (0, 1),
    "middle right": (1, 0),
    "middle left": (-1, 0),
    "top right": (1, -1),
    "top left": (-1, -1),
    "bottom right": (1, 1),
    "bottom left": (-1, 1),
}
"""Positions of a label, the best first; x to the right, y down."""


@dataclass(frozen=True)
class Plane:
    """The two directions in which a set of vectors differs most (PCA)."""

    centre: np.ndarray
    axes: np.ndarray
    """[2, d]; a direction that there is not is zero."""
    kept: float
    """Share of the differences that the plane shows, 0 to 1."""

    def place(self, vectors: np.ndarray) -> np.ndarray:
        """[n, d] -> [n, 2]."""
        return (vectors - self.centre) @ self.axes.T


def plane_of(vectors: np.ndarray) -> Plane:
    """Fitted to [n, d]; the same vectors give the same plane, signs included."""
    vectors = vectors.astype(np.float64)
    centre = vectors.mean(0)
    _, sizes, axes = np.linalg.svd(vectors - centre, full_matrices=False)
    first = np.zeros((2, vectors.shape[1]))
    for i, axis in enumerate(axes[:2]):
        first[i] = axis * (np.sign(axis[np.abs(axis).argmax()]) or 1)
    total = float((sizes**2).sum())
    return Plane(centre, first, float((sizes[:2] ** 2).sum()) / total if total > 1e-12 else 1.0)


def unit(vectors: Sequence[np.ndarray]) -> np.ndarray:
    """[n, d], each of length 1 (or 0)."""
    stacked = np.stack(vectors).astype(np.float64)
    lengths = np.linalg.norm(stacked, axis=1, keepdims=True)
    return stacked / np.where(lengths > 0, lengths, 1)


def alike(vectors: np.ndarray) -> np.ndarray:
    """[n, n]: the cosine of each two unit vectors."""
    return np.clip(vectors @ vectors.T, -1, 1)


def side_by_side(likeness: np.ndarray) -> list[int]:
    """An order in which each is followed by the one most alike of those that are left."""
    left, order = list(range(len(likeness))), []
    while left:
        ahead = max(left, key=lambda i: likeness[order[-1], i]) if order else left[0]
        order.append(ahead)
        left.remove(ahead)
    return order


def map_figure(
    names: Sequence[str],
    kinds: Sequence[str],
    places: np.ndarray,
    *,
    prompt: np.ndarray | None = None,
    found: Sequence[tuple[int, float]] = (),
) -> go.Figure:
    """Adapters as labelled points; a prompt [2], and lines to those that it finds, with scores."""
    figure = go.Figure()
    for index, score in found:
        if prompt is None:
            break
        figure.add_scatter(
            x=[prompt[0], places[index, 0]],
            y=[prompt[1], places[index, 1]],
            mode="lines",
            line={"color": PROMPT, "width": 1 + 4 * max(score, 0)},
            hoverinfo="skip",
            showlegend=False,
        )
    sides = _sides(names, places, prompt)
    for kind, (colour, symbol, words) in KINDS.items():
        mine = [i for i, one in enumerate(kinds) if one == kind]
        if mine:
            figure.add_scatter(
                x=places[mine, 0].tolist(),
                y=places[mine, 1].tolist(),
                mode="markers+text",
                name=words,
                text=[label_of(names[i]) if sides[i][0] else "" for i in mine],
                textposition=[sides[i][0] or "top center" for i in mine],
                textfont={
                    "size": 11,
                    "color": ["black" if sides[i][1] else WIDE_ALONE for i in mine],
                },
                marker={"size": 10, "color": colour, "symbol": symbol},
                hovertext=[label_of(names[i]) for i in mine],
                hovertemplate="%{hovertext}<extra></extra>",
            )
    if prompt is not None:
        figure.add_scatter(
            x=[float(prompt[0])],
            y=[float(prompt[1])],
            mode="markers+text",
            name="your prompt",
            text=["<b>your prompt</b>"],
            textposition="top center",
            marker={"size": 15, "color": PROMPT, "symbol": "star"},
            hoverinfo="skip",
        )
    dress(figure, height=460, margin=(10, 10, 34, 10))
    figure.update_layout(legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0})
    spread = float(np.ptp(places[:, 0])) * 0.14 or 1.0
    ends = places[:, 0] if prompt is None else np.append(places[:, 0], prompt[0])
    across = [float(ends.min()) - spread, float(ends.max()) + spread]
    figure.update_xaxes(showticklabels=False, range=across)
    figure.update_yaxes(showticklabels=False)
    return figure


def likeness_figure(names: Sequence[str], likeness: np.ndarray) -> go.Figure:
    """[n, n] as a heat map: white where two have nothing in common, blue where two are as alike as
    any two different ones."""
    apart = likeness[~np.eye(len(likeness), dtype=bool)]
    most = max(float(apart.max()), 0.01) if apart.size else 1.0
    words = [f"{place + 1} {label_of(name)}" for place, name in enumerate(names)]
    figure = go.Figure()
    figure.add_heatmap(
        z=likeness.round(3).tolist(),
        x=words,
        y=words,
        zmin=0,
        zmax=most,
        colorscale=[[0.0, "rgba(0,114,178,0.03)"], [1.0, "rgba(0,114,178,1)"]],
        colorbar={"title": "cosine", "thickness": 10, "len": 0.9},
        hovertemplate="%{y}<br>%{x}: %{z:.2f}<extra></extra>",
    )
    figure.update_xaxes(tickangle=-60, automargin=True, tickfont={"size": 10})
    figure.update_yaxes(autorange="reversed", automargin=True, tickfont={"size": 10})
    return dress(figure, height=180 + 18 * len(names), margin=(10, 10, 10, 10), grid=False)


def label_of(name: str) -> str:
    """A name that plotly shows as it is written, cut where it is long."""
    return inert(clipped(name, MAX_LABEL))


def _sides(
    names: Sequence[str], places: np.ndarray, prompt: np.ndarray | None
) -> list[tuple[str, bool]]:
    """Where each label stands, and whether on a phone too: the first of SIDES at which it covers no
    point and no label that is placed already, if there is one in the narrow picture as well;
    nowhere ("") where there is none, so that labels never overlap, or end at the edge."""
    spots = places if prompt is None else np.vstack([places, prompt])
    low, spans = spots.min(0), np.ptp(spots, axis=0)
    shares = (spots - low) / np.where(spans > 0, spans, 1) * (1, -1)
    drawn = [shares * size / (1.28, 1.1) for size in (PICTURE, PHONE)]
    taken = [[_box(spot, (14, 14), (0, 0)) for spot in one] for one in drawn]
    for boxes, (width, _) in zip(taken, (PICTURE, PHONE), strict=True):  # what is beyond the edges
        edge = 0.14 * width / 1.28
        boxes += [np.array([-FAR, -FAR, -edge, FAR])]
        boxes += [np.array([width / 1.28 + edge, -FAR, FAR, FAR])]
    if prompt is not None:
        for one, boxes in zip(drawn, taken, strict=True):
            boxes.append(_box(one[-1], (90, 16), (0, -1)))
    sides: list[tuple[str, bool]] = []
    for i, name in enumerate(names):
        size = (LETTER * len(label_of(name)), 17)
        boxes = [{w: _box(one[i], size, to) for w, to in SIDES.items()} for one in drawn]
        wide, phone = (
            [w for w, box in each.items() if not _touches(box, there, but=one[i])]
            for each, there, one in zip(boxes, taken, drawn, strict=True)
        )
        side = next((w for w in wide if w in phone), next(iter(wide), ""))
        sides.append((side, side in phone))
        for each, there, here in zip(boxes, taken, (side, side in phone), strict=True):
            there += [each[side]] if here else []
    return sides


def _box(spot: np.ndarray, size: tuple[float, float], towards: tuple[int, int]) -> np.ndarray:
    """[4]: left, top, right, bottom in pixels of a box beside a point, or around it."""
    wide, high = size
    middle = spot + np.array(towards) * (wide / 2 + 8 * bool(towards[0]), high / 2 + 8)
    return np.array([*(middle - (wide / 2, high / 2)), *(middle + (wide / 2, high / 2))])


def _touches(box: np.ndarray, others: Sequence[np.ndarray], *, but: np.ndarray) -> bool:
    """Whether it covers part of another, the point's own mark aside."""
    return any(
        (box[:2] < other[2:]).all() and (other[:2] < box[2:]).all()
        for other in others
        if not np.allclose((other[:2] + other[2:]) / 2, but)
    )
