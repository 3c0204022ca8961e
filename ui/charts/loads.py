"""Each expert's share of an answer, and two answers side by side.

Pure functions: a run -> loads -> a plotly figure, with a table twin.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ramole_core import mean_contribution, mean_weights

from .palette import ink_of, letter_of, places_of
from .plots import GREY, Table, dress, inert, named
from .run import CONTRIBUTION, EFFECT, WEIGHT, Run, led_by, strongest

MIN_SHARE = 5e-5
"""Smaller mean shares, or effects in nats, count as none."""
LED = "tokens led"


@dataclass(frozen=True)
class Load:
    """One expert in one answer."""

    name: str
    place: int
    """Its number for letter and colour."""
    led: float
    """Share of the tokens in which it leads."""
    mean: float
    """Mean effect over all tokens, in nats; or mean contribution over all tokens, layers and
    modules; or mean weight over the modules that it has."""
    share: float
    """Of that of all experts, the mean over the tokens."""
    used: bool
    """Whether it did anything at all."""

    @property
    def said(self) -> str:
        """The load in words, where it is small: empty otherwise."""
        if not self.used:
            return "not used in this answer"
        return "" if self.led else "never leads"

    @property
    def title(self) -> str:
        """`A dart`."""
        return f"{letter_of(self.place)} {self.name}"


@dataclass(frozen=True)
class Side:
    """The loads of one of two answers that are compared."""

    title: str
    loads: tuple[Load, ...]


def loads_of(run: Run, *, what: str = CONTRIBUTION, before: Sequence[str] = ()) -> tuple[Load, ...]:
    """Of each expert, by its effect, by what it contributed or by its weight; `before`: adapters of
    another run that keep their letters."""
    names = run.experts
    if not names or not len(run.shares):
        return ()
    leaders: list[int] = []
    if what == EFFECT and run.effects is not None:
        means, shares, leaders = run.effects, run.shares, run.leaders
    elif what == WEIGHT:
        means = mean_weights(run.gates, run.present)
        total = np.abs(means).sum(-1, keepdims=True)
        shares = np.divide(np.abs(means), total, out=np.zeros_like(means), where=total > 0)
    else:
        means, shares = mean_contribution(run.contribution), run.contribution_shares
    led = led_by(leaders or [strongest(row) for row in shares], len(names))
    places = places_of(names, before) if before else run.places
    did = np.abs(means) if leaders else shares  # what spoke against a token has no share of it
    rows = zip(names, places, led, means.mean(0), shares.mean(0), did.mean(0), strict=True)
    return tuple(
        Load(n, place, led, float(m), float(s), bool(d >= MIN_SHARE))
        for n, place, led, m, s, d in rows
    )


def loads_figure(sides: Sequence[Side], *, what: str = CONTRIBUTION) -> go.Figure:
    """For each expert the share of tokens that it led, and its mean effect, contribution or weight;
    with two sides a pair of bars, the second one hatched."""
    titles = titles_of(sides)
    heads = [LED, _mean_of(what)]
    figure = make_subplots(2, 1, vertical_spacing=0.2, subplot_titles=heads)
    for n, side in enumerate(sides):
        by_name = {load.name: load for load in side.loads}
        there = [by_name.get(name) for name in titles]
        led = [load and round(load.led, 4) for load in there]
        mean = [load and round(load.mean, 6) for load in there]
        for row, values in enumerate((led, mean), 1):
            figure.add_bar(
                x=values,
                y=list(titles.values()),
                orientation="h",
                marker={
                    "color": [ink_of(load.place).colour if load else GREY for load in there],
                    "pattern": {"shape": "/" if n else "", "size": 6, "solidity": 0.35},
                },
                text=[_note(load, row) for load in there],
                textposition="outside",
                cliponaxis=False,
                meta=inert(side.title),
                hovertemplate="%{y}<br>%{meta}: %{x}<extra></extra>" if len(sides) > 1 else None,
                name=inert(side.title),
                showlegend=False,
                row=row,
                col=1,
            )
    figure.update_annotations(font_size=12)
    figure.update_yaxes(autorange="reversed", automargin=True, showgrid=False)
    figure.update_layout(barmode="group", bargap=0.3, bargroupgap=0.12)
    height = 110 + 2 * (28 + 16 * (len(sides) - 1)) * max(len(titles), 1)
    dress(figure, height=max(height, 290), margin=(8, 30, 30, 28))
    figure.update_xaxes(range=[0, 1.3], tickformat=".0%", tickvals=[0, 0.5, 1], row=1)
    means = [load.mean for side in sides for load in side.loads]
    low, most = min([*means, 0.0]), max(means, default=1.0)
    high = 1.45 * most if most > 0 else 1 + low
    left = low - 0.3 * (high - low) if low < 0 else 0  # room for the number beside the bar
    figure.update_xaxes(range=[left, high], nticks=4, row=2)
    return named(figure, f"Load of each adapter{_against(sides)}")


def loads_table(sides: Sequence[Side], *, what: str = CONTRIBUTION) -> Table:
    """The twin of `loads_figure`: a row for each expert, `absent` in an answer that had it not."""
    several = len(sides) > 1
    heads = [LED, _mean_of(what), "share", "note"]
    headers = ["adapter"]
    headers += [f"{side.title}: {head}" if several else head for side in sides for head in heads]
    rows: list[list[str | float]] = []
    for name, title in titles_of(sides, plain=True).items():
        row: list[str | float] = [title]
        for side in sides:
            row += _cells({one.name: one for one in side.loads}.get(name))
        rows.append(row)
    return headers, rows


def _mean_of(what: str) -> str:
    return f"mean {what} (nats a token)" if what == EFFECT else f"mean {what}"


def titles_of(sides: Sequence[Side], *, plain: bool = False) -> dict[str, str]:
    """Each adapter of any side, once, with its letter; escaped for plotly unless `plain`."""
    loads = [load for side in sides for load in side.loads]
    return {load.name: load.title if plain else inert(load.title) for load in loads}


def changed(sides: Sequence[Side]) -> str:
    """The adapters that two answers share, in one sentence."""
    first, second = ({load.name for load in side.loads} for side in sides)
    if not (both := sorted(first & second)):
        return "The two runs have no adapter in common."
    return f"In both runs: {', '.join(both)}; letter and colour are the same."


def _cells(load: Load | None) -> list[str | float]:
    if load is None:
        return ["absent", "absent", "absent", ""]
    return [round(load.led, 3), round(load.mean, 5), round(load.share, 3), load.said]


def _note(load: Load | None, row: int) -> str:
    if load is None:
        return "absent"
    if row == 2:
        return f"{load.mean:.4f}"
    return load.said or f"{100 * load.led:.0f} %"


def _against(sides: Sequence[Side]) -> str:
    return f": {' against '.join(side.title for side in sides)}" if len(sides) > 1 else ""
