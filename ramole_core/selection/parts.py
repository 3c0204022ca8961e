"""The parts of a prompt that asks for several things, each for an adapter of its own.

    parts = the cut with the largest  sum_i (s_i - price),   s_i = max_j cos(part_i, adapter_j)

A part is a run of pieces (sentences, lines). Each of several parts must fit: s_i reaches MIN_FIT
and what the base model asks for (`base_expert.py`); neighbours that find the same adapter are one
part. All runs of a few pieces are embedded. Of more pieces a first look gives a run the mean of its
pieces' vectors, and the runs between the ends that it proposes are embedded, and decide. PRICE and
MIN_FIT were fitted on training rows, for the encoder that the calibration is of (LOG); with another
encoder only `split=True` cuts. `python -m lab parts_table` measures what comes of it.
"""

import re
from collections.abc import Callable, Sequence
from itertools import combinations, pairwise

import numpy as np
from jaxtyping import Float32

from ramole_core.methods import find_row
from ramole_core.pool import Pool
from ramole_core.request import Request
from ramole_core.retrieval import BaseExpert, Hit, Retriever

CUT_PRICE = 0.30
PRICE = 0.40
MIN_FIT = 0.35
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
"""A run's similarity to its nearest adapter, and that adapter; None: none fits."""


def pieces_of(text: str, most: int = MAX_PIECES) -> list[str]:
    """The text's sentences and lines, in order; joined they are the text."""
    ends = [0, *(match.end() for match in END.finditer(text.rstrip())), len(text)]
    found = [text[start:end] for start, end in pairwise(ends) if text[start:end]]
    while len(found) > most:
        n = min(range(len(found) - 1), key=lambda n: len(found[n]) + len(found[n + 1]))
        found[n : n + 2] = [found[n] + found[n + 1]]
    return found


def cut(ends: Sequence[int], fit: Callable[[Run], Fit], price: float) -> list[Run]:
    """Cut at some of these ends (the first and last among them) for the largest sum of fits less
    `price` each; one run where nothing else fits."""
    best: list[tuple[float, list[Run], str | None] | None] = [(0.0, [], None)]
    for end in ends[1:]:
        found = None
        for start, before in zip(ends, best, strict=False):
            whole = (start, end) == (ends[0], ends[-1])
            if before is None:
                continue
            similarity, name = fit((start, end))
            if not whole and (name is None or name == before[2]):
                continue
            sum_now = before[0] + similarity - price
            if found is None or sum_now > found[0]:
                found = (sum_now, [*before[1], (start, end)], name)
        best.append(found)
    assert best[-1] is not None
    return best[-1][1]


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
        vectors = self._retriever.vectors([request.prompt, *pieces])
        names = {hit.name for text in pieces for hit in self._nearest(text, request)}
        known = sorted(names & cards.keys())
        adapters = np.stack(self._retriever.card_vectors([cards[name] for name in known]))
        weighted = [len(text) * vector for text, vector in zip(pieces, vectors[1:], strict=True)]

        def fit(vector: Float32[np.ndarray, "d"]) -> Fit:
            similarities = adapters @ vector
            best = int(np.argmax(similarities))
            similarity = float(similarities[best])
            fits = similarity >= max(MIN_FIT, self._base.needed(vector))
            return similarity, known[best] if fits else None

        def looked_at(run: Run) -> Fit:
            start, end = run
            alone = end - start < len(pieces)
            vector = np.sum(weighted[start:end], 0) if alone else vectors[0]
            return fit(vector / np.linalg.norm(vector))

        ends = list(range(len(pieces) + 1))
        if len(pieces) > MAX_WHOLE:
            ends = [0, *(end for _, end in cut(ends, looked_at, CUT_PRICE))]
        if len(ends) < 3:
            return whole
        texts = {run: "".join(pieces[slice(*run)]).strip() for run in combinations(ends, 2)}
        embedded = dict(zip(texts, self._retriever.vectors(list(texts.values())), strict=True))
        return tuple(texts[run] for run in cut(ends, lambda run: fit(embedded[run]), PRICE))

    def _splits(self, request: Request) -> bool:
        splits = find_row(request.method).splits and self._base.calibrated
        given = request.adapters or request.raw or request.examples or request.messages
        told = request.prefix_ids or request.without or request.later_weights
        told = told or request.prompt_logprobs or request.json_schema is not None
        return not (given or told) and (splits if request.split is None else request.split)

    def _nearest(self, text: str, request: Request) -> list[Hit]:
        exclude = tuple(request.exclude)
        return self._retriever.retrieve(text, NEAREST, exclude, request.owner)
