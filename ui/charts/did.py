"""The effects of adapters on a token, or a whole answer, in words and as one bar.

The bar runs from the base's log probability to the mixture's, adapter by adapter, so that its parts
add up to the values at its ends. Pure functions data -> HTML.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from ramole_core import CHANGED, MAX_SHAPLEY

from ..parts.asked import signed
from .palette import BASE, chip_html, ink_of, letter_of

MARGIN = 0.08
"""Share of the bar's length on both sides of its values."""
NATS = ", the natural logarithm of that"
LOG = "Log probability of this answer (natural logarithm)"
"""Both explain the unit where it first stands."""
NEAR = 1.05
"""A factor below which nothing changed."""


@dataclass(frozen=True)
class Did:
    """One token, or a sum over tokens."""

    experts: tuple[tuple[str, int], ...]
    """Each with its number for letter and colour."""
    base: float
    """Log probability by the base alone, in nats."""
    effects: tuple[float, ...]
    mixture: float
    subsets: tuple[float, ...] = ()
    """Log probability with each subset of the adapters, as `Generation.subset_logprob`; empty where
    it was not kept."""

    def without(self, *experts: int) -> float | None:
        """Log probability had these not been found; None where it was not kept."""
        if len(experts) == len(self.experts):
            return self.base
        left = sum(1 << e for e in range(len(self.experts)) if e not in experts)
        return self.subsets[left] if self.subsets else None

    @property
    def leader(self) -> int:
        """As `leader_of`."""
        return leader_of(self.effects)


def leader_of(effects: Sequence[float] | np.ndarray) -> int:
    """The adapter with the largest effect on a token, the first of equal ones; -1 where none
    changed anything."""
    found = np.asarray(effects)
    return int(found.argmax()) if found.size and found.max() >= CHANGED else -1


def factor(nats: float, *, most: int = 1000) -> str:
    """`4.1 times likelier`, of a token by an effect; a factor beyond `most` is said to be so."""
    times = math.exp(min(abs(nats), 20))
    if times < NEAR:
        return "hardly changed"
    said = f"{times:.1f}" if times < 10 else f"{times:,.0f}"
    said = said if times < most else f"over {most:,}"
    return f"{said} times {'likelier' if nats > 0 else 'less likely'}"


def chance(logprob: float) -> str:
    """A probability in percent, of its logarithm."""
    percent = 100 * math.exp(min(logprob, 0.0))
    if percent < 0.01:
        return "under 0.01 %"
    return f"{percent:.0f} %" if percent >= 99.5 or percent == 0 else f"{percent:.2g} %"


def sentence(did: Did) -> str:
    """The effects on a token, in one sentence of HTML."""
    if did.leader >= 0:
        name, place = did.experts[did.leader]
        who = f"<strong>{letter_of(place)} {escape(name)}</strong>"
        return f"{who} made this token {factor(did.effects[did.leader])}."
    if did.base - did.mixture >= CHANGED:
        return f"The base alone would have said it more readily: {factor(did.mixture - did.base)}."
    return "The base alone would have said it nearly as readily: no adapter changed anything here."


def without_html(did: Did, *experts: int) -> str:
    """What the token's probability were had these experts not been found, as one sentence; empty
    where it was not measured."""
    found = did.without(*experts)
    if found is None:
        return ""
    everybody = len(experts) == len(did.experts) > 1
    gone = "no adapter" if everybody else f"<strong>{escape(did.experts[experts[0]][0])}</strong>"
    had = "had been found" if everybody else "had not been found"
    return (
        f"Measured: if {gone} {had} for this turn, this token would be "
        f"{factor(found - did.mixture)}: {chance(found)} in the place of {chance(did.mixture)}."
    )


def did_html(did: Did, notes: Sequence[str] = ()) -> str:
    """The bar, its ends in percent, and each adapter in words; `notes` stand behind these."""
    items = []
    for e, ((name, place), effect) in enumerate(zip(did.experts, did.effects, strict=True)):
        note = f"{'' if e else NATS}{notes[e] if notes else ''}"
        items.append(
            f'<li>{chip_html(place)}<span class="name">{escape(name)}</span>'
            f'<span class="share">{factor(effect)}</span> '
            f'<span class="quiet">({signed(effect, "+.2f")} nats{note})</span></li>'
        )
    ends = (
        f'<p class="ends"><span>base alone: {chance(did.base)}</span>'
        f"<span>with the adapters: {chance(did.mixture)}</span></p>"
    )
    left_out = ""
    if len(did.experts) > MAX_SHAPLEY:
        left_out = (
            f'<p class="quiet">With more than {MAX_SHAPLEY} adapters an effect is what leaving '
            "one out changes, and effects need not add up.</p>"
        )
    return (
        f'{bar_html(did)}{ends}<ul class="legend" aria-label="Effect of each adapter">'
        f"{''.join(items)}</ul>{left_out}{subsets_html(did)}"
    )


def subsets_html(did: Did) -> str:
    """The probability with each subset of the adapters, folded; empty where it was not kept."""
    k = len(did.experts)
    if k < 2 or not did.subsets:
        return ""
    rows = []
    for column in sorted(range(2**k), key=lambda one: (one.bit_count(), one)):
        there = [chip_html(did.experts[e][1]) for e in range(k) if column >> e & 1]
        v = did.subsets[column]
        rows.append(
            f"<tr><th scope='row'>{''.join(there) or 'nobody: the base'}</th>"
            f'<td class="number">{signed(v, ".2f")}</td><td class="number">{chance(v)}</td></tr>'
        )
    return (
        "<details><summary>With each choice of adapters</summary>"
        '<p class="quiet">The turn was read again with each. An effect is the mean of what an '
        "adapter adds, over all orders in which they may come.</p>"
        "<table><thead><tr><th>found</th><th>log of the probability</th><th>probability</th></tr>"
        f"</thead><tbody>{''.join(rows)}</tbody></table></details>"
    )


def whole_html(did: Did, tokens: int) -> str:
    """The log probability of a whole answer: the base's and what each adapter added, as one bar and
    as a sum in words."""
    each = f"{signed(did.mixture / max(tokens, 1), '.2f')} a token"
    if not did.experts:
        said = f"{LOG} by the base: {signed(did.mixture, '.1f')} nats, {each}."
        return f'<p class="quiet">{said}</p>'
    terms = "".join(
        f" {'−' if effect < 0 else '+'} {abs(effect):.1f} {chip_html(place)}"
        for (_, place), effect in zip(did.experts, did.effects, strict=True)
    )
    said = f"base {signed(did.base, '.1f')}{terms} = {signed(did.mixture, '.1f')} nats, {each}"
    return f'<div class="whole">{bar_html(did)}<p class="quiet">{LOG}: {said}.</p></div>'


def bar_html(did: Did) -> str:
    """The bar alone: grey up to the base's log probability, then a piece for each adapter; striped
    ones go back."""
    stops = [did.base]
    for effect in did.effects:
        stops.append(stops[-1] + effect)
    low, high = min(stops), max(stops)
    room = max(high - low, CHANGED)
    low, high = low - MARGIN * room, high + MARGIN * room

    def at(value: float) -> float:
        return 100 * (value - low) / (high - low)

    parts = [_piece(0, at(did.base), f"--expert:{BASE}", "", "base")]
    for (_, place), start, end in zip(did.experts, stops, stops[1:], strict=False):
        left, right = sorted((at(start), at(end)))
        ink, back = ink_of(place), end < start
        style = f"--expert:{ink.colour}" + ("" if back else f";color:{ink.text}")
        label = letter_of(place) if right - left > 5 and not back else ""
        parts.append(_piece(left, right, style, label, "back" if back else "on"))
    parts.append(f'<b class="end" style="left:{at(stops[-1]):.2f}%"></b>')
    return f'<div class="did" aria-hidden="true">{"".join(parts)}</div>'


def _piece(start: float, end: float, style: str, label: str, kind: str) -> str:
    place = f"left:{start:.2f}%;width:{end - start:.2f}%"
    return f'<i class="{kind}" style="{place};{style}">{label}</i>'
