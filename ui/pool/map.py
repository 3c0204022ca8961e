"""The folded map of the tab Pool: pictures and their tables, drawn when it is opened, and again for
a prompt.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import gradio as gr
import numpy as np
import plotly.graph_objects as go

from ramole_core import AdapterCard, Ramole, RamoleError, update_likeness

from ..charts.pool_map import (
    KINDS,
    alike,
    likeness_figure,
    map_figure,
    plane_of,
    side_by_side,
    unit,
)
from ..parts.asked import counted
from ..parts.errors import one_sentence
from ..parts.events import PLAIN
from ..parts.fields import k_field
from ..parts.markup import escaped, table_html
from ..session.quota import Quota

MAX_POINTS, MAX_PAIRS, MAX_UPDATES = 120, 50, 24
"""Adapters that are drawn on the map, and in the pictures of pairs; updates are read from files."""
MAX_PROMPT = 8000
LOOK = (
    "Look for adapters of like tasks side by side, and for where your prompt falls among them: the "
    "nearer an adapter's direction, the sooner it is found."
)
FOUND_BY, CHANGE = "what they are found by", "what they change"
"""Kinds of similarity of two adapters."""
OF = {
    FOUND_BY: (
        "the vectors",
        "Look for full blue beside the diagonal: adapters that are easily taken for one another.",
    ),
    CHANGE: (
        "the updates B A, over all modules of the model,",
        "Look at the scale, and for blue beside the diagonal: adapters that push the model the "
        "same way. Most are nearly at right angles, however alike their tasks are.",
    ),
}
"""By kind: what is compared, and what to look for."""


class MapUpdate(NamedTuple):
    """The two pictures with their words and tables."""

    map: go.Figure
    told: str
    pairs: go.Figure
    pairs_told: str


def draw(
    ramole: Ramole,
    quota: Quota,
    prompt: str,
    k: float,
    *,
    owner: str | None,
    by: str = FOUND_BY,
) -> MapUpdate:
    """The pool of this visitor, and where the prompt lies in it, the pairs alike in what `by` says;
    RamoleError where it is empty or the prompt is too long."""
    prompt = (prompt or "").strip()
    if len(prompt) > MAX_PROMPT:
        raise RamoleError(
            f"The prompt has {len(prompt)} characters, and {MAX_PROMPT} is the most here; "
            "shorten it."
        )
    cards = sorted(ramole.pool.cards(owner), key=lambda card: (card.name, card.key))
    if not cards:
        raise RamoleError("The pool is empty, so there is nothing to draw; add an adapter.")
    hits = ramole.retrieve(prompt, k=max(int(k or 1), 1), owner=owner) if prompt else []
    shown, left = _shown(cards, [(hit.owner, hit.name) for hit in hits])
    vectors = unit(ramole.retriever.card_vectors(shown))
    plane = plane_of(vectors)
    places = plane.place(vectors)
    kinds = [_kind(card, quota, owner) for card in shown]
    names = [card.name for card in shown]
    at = {(card.owner, card.name): i for i, card in enumerate(shown)}
    found = [(at[hit.owner, hit.name], hit.score) for hit in hits]
    here, similar = None, None
    if prompt:
        vector = unit(ramole.retriever.vectors([prompt]))
        here, similar = plane.place(vector)[0], (vectors @ vector[0]).tolist()
    count = MAX_UPDATES if by == CHANGE else MAX_PAIRS
    matrix = likeness(ramole, shown[:count], vectors[:count], by)
    some = side_by_side(matrix)
    matrix, paired = matrix[np.ix_(some, some)], [names[i] for i in some]
    return MapUpdate(
        map_figure(names, kinds, places, prompt=here, found=found),
        _note(plane.kept, hits, left) + _table(names, kinds, places, similar),
        likeness_figure(paired, matrix),
        _pairs_told(by, len(paired), len(names) - len(paired)) + _pairs_table(paired, matrix),
    )


def likeness(
    ramole: Ramole, cards: Sequence[AdapterCard], vectors: np.ndarray, by: str
) -> np.ndarray:
    """[n, n]: the similarity of each two, of their vectors or their updates."""
    if by == CHANGE:
        return update_likeness(ramole.pool, cards)
    return alike(vectors)


def _shown(
    cards: Sequence[AdapterCard], found: Sequence[tuple[str | None, str]]
) -> tuple[list[AdapterCard], int]:
    """The drawn adapters, found ones included, and the number left out."""
    first = sorted(cards, key=lambda card: (card.owner, card.name) not in found)[:MAX_POINTS]
    return sorted(first, key=lambda card: (card.name, card.key)), len(cards) - len(first)


def _kind(card: AdapterCard, quota: Quota, owner: str | None) -> str:
    if card.sample:
        return "sample"
    return "yours" if quota.owns(card, owner) else "shared"


def _note(kept: float, hits: Sequence, left: int) -> str:
    found = ", ".join(f"{escaped(hit.name)} ({hit.score:.2f})" for hit in hits)
    said = f"<p><b>Found for your prompt, with their similarity: {found}.</b></p>" if found else ""
    more = f" Not drawn: {counted(left, 'more adapter')}." if left else ""
    return (
        f'{said}<p>{LOOK}</p><p class="caption">Each point is an adapter, placed by the vector by '
        "which it is found, flattened from many dimensions to two (PCA). The picture keeps "
        f"{100 * kept:.0f} % of the differences, so two points may look nearer than they are; "
        f"lines and numbers come from the whole vectors.{more}</p>"
    )


def _pairs_told(by: str, drawn: int, left: int) -> str:
    what, look = OF[by]
    more = f" The first {drawn} are drawn, {left} are not." if left else ""
    return (
        f'<p>{look}</p><p class="caption">The cosine of {what} of each two: 1 is the '
        "same direction, 0 nothing in common. Adapters that are alike stand side by side."
        f"{more}</p>"
    )


def _table(
    names: Sequence[str],
    kinds: Sequence[str],
    places: np.ndarray,
    similar: Sequence[float] | None,
) -> str:
    heads = ["adapter", "whose", "across", "up", *(["similarity"] if similar is not None else [])]
    order = sorted(range(len(names)), key=lambda i: -similar[i] if similar is not None else i)
    rows = [
        [
            names[i],
            KINDS[kinds[i]][2],
            f"{places[i, 0]:.2f}",
            f"{places[i, 1]:.2f}",
            *([f"{similar[i]:.2f}"] if similar is not None else []),
        ]
        for i in order
    ]
    return _twin("The map as a table", heads, rows)


def _pairs_table(names: Sequence[str], matrix: np.ndarray) -> str:
    rows = [
        [f"{i + 1} {name}", *(f"{value:.2f}" for value in matrix[i])]
        for i, name in enumerate(names)
    ]
    return _twin("The pairs as a table", ["adapter", *map(str, range(1, len(names) + 1))], rows)


def _twin(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    table = table_html(map(escaped, heads), (map(escaped, row) for row in rows))
    return (
        f'<details class="rm-twin"><summary>{title}</summary><div class="rm-twin-box" tabindex="0" '
        f'role="region" aria-label="{title}">{table}</div></details>'
    )


FOLD = "Map: which adapters are alike, and which ones a prompt finds"


class PoolMap:
    """Its components, folded, inside the tab that is open."""

    def __init__(self) -> None:
        with gr.Accordion(FOLD, open=False, elem_id="pool-map") as self.fold:
            with gr.Row(equal_height=False):
                self.prompt = gr.Textbox(
                    label="A prompt to place among them (optional)",
                    placeholder="Fix the capital letters in the following text: i live in paris",
                    lines=1,
                    max_lines=4,
                    scale=3,
                    min_width=240,
                    elem_id="pool-map-prompt",
                )
                self.k = k_field(3, min_width=160)
                self.k.label = "k, adapters to find"
                self.show = gr.Button("Show where it falls", min_width=150, elem_id="pool-map-show")
            self.plot = gr.Plot(show_label=False, container=False, elem_id="pool-map-plot")
            self.told = gr.HTML(elem_id="pool-map-told", **PLAIN)
            # In what pairs are alike.
            self.by = gr.Radio(
                [FOUND_BY, CHANGE], value=FOUND_BY, label="Pairs alike in", elem_id="pool-pairs-by"
            )
            self.pairs = gr.Plot(show_label=False, container=False, elem_id="pool-pairs-plot")
            self.pairs_told = gr.HTML(elem_id="pool-pairs-told", **PLAIN)

    @property
    def drawn(self) -> list[Any]:
        """In the order in which `MapUpdate` has them."""
        return [self.plot, self.told, self.pairs, self.pairs_told]


def connect_map(ui: PoolMap, ramole: Ramole, quota: Quota, call: Callable) -> None:

    def on_draw(prompt: str, k: float, by: str, request: gr.Request):
        by = by if by in OF else FOUND_BY
        with one_sentence(), call(request) as visitor:
            return draw(ramole, quota, prompt, k, owner=visitor.owner, by=by)

    gr.on(
        [ui.fold.expand, ui.prompt.submit, ui.show.click, ui.by.input],
        on_draw,
        [ui.prompt, ui.k, ui.by],
        ui.drawn,
        trigger_mode="always_last",
        concurrency_id="map",
        api_visibility="private",
        show_progress="minimal",
        show_progress_on=ui.plot,
    )
