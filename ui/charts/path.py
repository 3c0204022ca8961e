"""How an answer came about, one thing after another: prompt, vector, adapters, layers, token.

Each part appears when its turn comes (`style.css`), three seconds after the one before, and stays;
with reduced motion, or where the reader wants it all at once, they are there from the beginning.
After the Transformer Explainer (2408.04619), for a pool of adapters.
"""

import math
from collections.abc import Sequence

import numpy as np

from ..parts.markup import clipped, escaped
from .did import NEAR, factor
from .explained import spell
from .palette import chip_html, ink_of
from .run import Run

MAX_LETTERS = 160
CELLS = 64
"""Numbers of the vector that are drawn."""
FULL = 0.1
"""Number from which the colour is full."""
MAX_ADAPTERS = 5
MAX_TIMES = 1_000_000
"""Largest factor that is shown exactly."""


def path_html(run: Run, vector: Sequence[float] | np.ndarray = ()) -> str:
    """The path of one token: the one that the adapters changed most; `vector` is the prompt's, and
    without it the part is a sentence."""
    index = changed_most(run)
    parts = (
        ("The prompt", _prompt(run)),
        ("becomes a vector", _vector(vector)),
        ("that finds the nearest adapters", _found(run)),
        ("They change what each layer gives", _layers(run, index)),
        ("and a token comes", _token(run, index)),
    )
    items = "".join(
        f'<li style="--turn:{turn}"><h3>{title}</h3>{inside}</li>'
        for turn, (title, inside) in enumerate(parts)
    )
    at_once = '<label><input type="checkbox" class="at-once"> all at once</label>'
    name = 'class="path" aria-label="How it came about"'
    return f"<section {name}>{at_once}<ol>{items}</ol></section>"


def changed_most(run: Run) -> int:
    """The place of the token that the adapters made likeliest; 0 where that was not measured."""
    effects = run.effects
    return 0 if effects is None or not effects.size else int(effects.sum(1).argmax())


def _prompt(run: Run) -> str:
    return f'<p class="said">{escaped(clipped(run.request.prompt, MAX_LETTERS))}</p>'


def _vector(vector: Sequence[float] | np.ndarray) -> str:
    if not len(vector):
        return "<p>Numbers that say what the words are about.</p>"
    cells = "".join(
        f'<i style="background:{"#0072b2" if n > 0 else "#d55e00"};'
        f'opacity:{min(abs(float(n)) / FULL, 1):.2f}"></i>'
        for n in vector[:CELLS]
    )
    return (
        f'<div class="cells" aria-hidden="true">{cells}</div><p>{len(vector):,} numbers that say '
        f"what the words are about; the first {min(CELLS, len(vector))} are drawn.</p>"
    )


def _found(run: Run) -> str:
    places = dict(zip(run.experts, run.places, strict=True))
    near = sorted((f for f in run.found if math.isfinite(f.score)), key=lambda f: -f.score)
    if not near:
        return "<p>None had to be found by its similarity.</p>"
    shown = [f for f in near if f.taken] + [f for f in near if not f.taken]
    items = "".join(
        f'<div class="near{"" if f.taken else " left"}">'
        f"{chip_html(places[f.name]) if f.name in places else ''}<span>{escaped(f.name)}</span>"
        f'<i class="bar"><i style="width:{100 * min(max(f.score, 0), 1):.0f}%"></i></i>'
        f"<b>{f.score:.2f}</b></div>"
        for f in shown[:MAX_ADAPTERS]
    )
    return items + "<p>The cosine between the prompt and the adapters' examples.</p>"


def _layers(run: Run, index: int) -> str:
    moved, experts = run.contribution, run.experts
    if not experts:
        return "<p>No adapter answers: every layer stays as the base has it.</p>"
    if not 0 <= index < len(moved):
        return "<p>How far is not recorded in this run.</p>"
    rows = moved[index].mean(1)  # [layer, k]
    widest = float(rows.sum(1).max()) or 1.0
    drawn = "".join(
        f'<span style="--layer:{layer}">'
        + "".join(
            f'<i style="width:{100 * float(one) / widest:.1f}%;background:{ink_of(place).colour}">'
            "</i>"
            for one, place in zip(row, run.places, strict=True)
        )
        + "</span>"
        for layer, row in enumerate(rows)
    )
    first = int(np.asarray(rows.sum(0)).argmax())
    return (
        f'<div class="layers" aria-hidden="true">{drawn}</div><p>{len(rows)} layers, the first '
        f"below; {escaped(experts[first])} moves their outputs most.</p>"
    )


def _token(run: Run, index: int) -> str:
    if not run.pieces:
        return "<p>None came.</p>"
    text = run.pieces[index]
    piece = f'<p class="piece">{escaped(spell(text.strip(" ") or text))}</p>'
    did = run.did(index)
    if not run.experts:
        return piece + "<p>By the base alone.</p>"
    if did is None:
        return piece + "<p>What the adapters changed was not measured.</p>"
    return piece + f"<p>{_against_base(did.mixture - did.base)}</p>"


def _against_base(nats: float) -> str:
    """`4.1 times likelier than by the base alone.`, of a token by all effects."""
    if math.exp(abs(nats)) < NEAR:
        return "About as likely as by the base alone."
    return f"{factor(nats, most=MAX_TIMES)} than by the base alone."
