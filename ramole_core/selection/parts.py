"""The parts of a prompt that asks for several things, each for an adapter of its own.

    parts = the cut with the largest  sum_i (max_j cos(part_i, adapter_j) - cos(part_i, adapter_w))
                                      - sum over its cuts of price

with w the adapter that is nearest to the whole prompt: a part is worth how much nearer an adapter
of its own is. A part is a run of pieces (sentences, lines). Each of several parts must fit: its
similarity reaches MIN_FIT and what the base model asks for (`base_expert.py`); neighbours that find
the same adapter are one part. A cut costs less where the text says that another request begins
(`cues.py`, English), but in a form, whose fields belong together. All runs of a few pieces are
embedded. Of more pieces a first look gives a run the mean of its pieces' vectors, at FIRST of the
price, and the runs between the ends that it proposes are embedded, and decide. Prices and MIN_FIT
were fitted on training rows and prompts in people's own words, for the encoder that the calibration
is of (LOG); with another encoder only `split=True` cuts. `python -m lab parts_table` and
`second_half` measure what comes of it.
"""

import re
from collections.abc import Callable, Sequence
from itertools import combinations, pairwise
from math import log

import numpy as np
from jaxtyping import Float32

from ramole_core.methods import find_row
from ramole_core.pool import Pool
from ramole_core.request import Request
from ramole_core.retrieval import BaseExpert, Hit, Retriever
from ramole_core.selection.cues import asks, begun_anew, has_fields, joins

PLAIN, BOTH_ASK, JOINED = 0.25, 0.05, 0.03
"""The price of a cut: without a cue or in a form, where both sides ask, behind a joining word."""
PLACES = 0.02
"""More for each natural logarithm of the places where the prompt could be cut."""
FIRST = 0.4
MIN_FIT = 0.20
MAX_WHOLE = 4
"""All runs of so many are embedded."""
MAX_PIECES = 12
"""More are joined, the shortest neighbours first."""
NEAREST = 3
"""Adapters that are compared with every run, for each piece."""
END = re.compile(r"\n+|(?<=[.!?])[\"')\]]*\s+")
"""Where a piece may end."""
Run = tuple[int, int]
"""A part's first piece, and the one after its last."""
Fit = tuple[float, str | None]
"""What a run is worth, and its nearest adapter; None: none fits."""


def pieces_of(text: str, most: int = MAX_PIECES) -> list[str]:
    """The text's sentences and lines, in order; joined they are the text."""
    ends = [0, *(match.end() for match in END.finditer(text.rstrip())), len(text)]
    found = [text[start:end] for start, end in pairwise(ends) if text[start:end]]
    while len(found) > most:
        n = min(range(len(found) - 1), key=lambda n: len(found[n]) + len(found[n + 1]))
        found[n : n + 2] = [found[n] + found[n + 1]]
    return found


def cut(
    ends: Sequence[int], fit: Callable[[Run], Fit], price: Callable[[Run, Run], float]
) -> list[Run]:
    """Cut at some of these ends (the first and last among them) for the largest sum of fits less
    the `price` of each two neighbours; one run where nothing else fits."""
    best: list[tuple[float, list[Run], str | None] | None] = [(0.0, [], None)]
    for end in ends[1:]:
        found = None
        for start, before in zip(ends, best, strict=False):
            whole = (start, end) == (ends[0], ends[-1])
            if before is None:
                continue
            worth, name = fit((start, end))
            if not whole and (name is None or name == before[2]):
                continue
            sum_now = before[0] + worth
            if before[1]:
                sum_now -= price(before[1][-1], (start, end))
            if found is None or sum_now > found[0]:
                found = (sum_now, [*before[1], (start, end)], name)
        best.append(found)
    assert best[-1] is not None
    return best[-1][1]


def price_of(before: str, after: str, *, form: bool) -> float:
    """The price of a cut between two parts of a text; `form`: it has named fields."""
    if not form and joins(after):
        return JOINED
    return BOTH_ASK if not form and asks(before) and asks(after) else PLAIN


class Parts:
    """The cutter of prompts, over one pool."""

    def __init__(self, pool: Pool, retriever: Retriever, *, base: BaseExpert):
        self._pool, self._retriever, self._base = pool, retriever, base

    def of(self, request: Request) -> tuple[str, ...]:
        """The parts of the request's prompt, in order; the prompt alone where it is answered as a
        whole."""
        whole = (request.prompt,)
        if not self._splits(request) or len(pieces := pieces_of(request.prompt)) < 2:
            return whole
        cards = {
            card.name: card
            for card in self._pool.cards(request.owner)
            if card.name not in request.exclude and not card.blind
        }
        if len(cards) < 2:
            return whole
        every = (request.prompt, *pieces)
        vectors = self._retriever.vectors(every)
        names = {hit.name for text in every for hit in self._nearest(text, request)}
        known = sorted(names & cards.keys())
        adapters = np.stack(self._retriever.card_vectors([cards[name] for name in known]))
        leader = int(np.argmax(adapters @ vectors[0]))
        weighted = [len(text) * vector for text, vector in zip(pieces, vectors[1:], strict=True)]

        def near(vector: Float32[np.ndarray, "d"]) -> tuple[float, float, str]:
            """Similarity to its nearest adapter, what that is ahead of the leader, and its name."""
            similarities = adapters @ vector
            best = int(np.argmax(similarities))
            similarity = float(similarities[best])
            return similarity, similarity - float(similarities[leader]), known[best]

        def fit(vector: Float32[np.ndarray, "d"]) -> Fit:
            similarity, ahead, name = near(vector)
            fits = similarity >= max(MIN_FIT, self._base.needed(vector))
            return ahead, name if fits else None

        def looked_at(run: Run) -> Fit:
            start, end = run
            alone = end - start < len(pieces)
            vector = np.sum(weighted[start:end], 0) if alone else vectors[0]
            return near(vector / np.linalg.norm(vector))[1:]

        form, more = has_fields(request.prompt), PLACES * log(len(pieces) - 1)

        def price(before: Run, after: Run) -> float:
            return more + price_of(text_of(before), text_of(after), form=form)

        def text_of(run: Run) -> str:
            return "".join(pieces[slice(*run)]).strip()

        def part_of(run: Run) -> str:
            return begun_anew(text_of(run)) if run[0] else text_of(run)

        ends = list(range(len(pieces) + 1))
        if len(pieces) > MAX_WHOLE:
            less = lambda before, after: FIRST * price(before, after)  # noqa: E731
            ends = [0, *(end for _, end in cut(ends, looked_at, less))]
        if len(ends) < 3:
            return whole
        texts = {run: part_of(run) for run in combinations(ends, 2)}
        embedded = dict(zip(texts, self._retriever.vectors(list(texts.values())), strict=True))
        return tuple(texts[run] for run in cut(ends, lambda run: fit(embedded[run]), price))

    def _splits(self, request: Request) -> bool:
        splits = find_row(request.method).splits and self._base.calibrated
        given = request.adapters or request.raw or request.examples or request.messages
        told = request.prefix_ids or request.without or request.later_weights
        told = told or request.prompt_logprobs or request.json_schema is not None
        return not (given or told) and (splits if request.split is None else request.split)

    def _nearest(self, text: str, request: Request) -> list[Hit]:
        exclude = tuple(request.exclude)
        return self._retriever.retrieve(text, NEAREST, exclude, request.owner)
