"""Fit where the base answers, and where a follow-up keeps its adapters: `calibrate`.

A line between two kinds of texts is logistic regression over a few similarities, balanced:

    sum_f w_f x_f + c = 0    where  mean over each kind of  log(1 + exp(-+(w x + c)))  + ridge |w|^2

is least. Each kind counts the same, however many texts it has. The lines are fitted on half of the
written prompts: every other family of everyday prompts, every other adapter's prompts in people's
own words, every other chat. The other halves measure the lines. Of a pool without such prompts, its
adapters' examples are used, each against the mean of the others.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float

from ramole_core.errors import RamoleError
from ramole_core.request import Request
from ramole_core.retrieval.base_expert import card_vectors
from ramole_core.retrieval.calibration import (
    BlindLine,
    Calibration,
    FollowUpLine,
    ResponseLine,
    SimilarityLine,
)
from ramole_core.retrieval.card_vector import card_words, with_words
from ramole_core.retrieval.encoder import unit
from ramole_core.retrieval.own_cards import cards_checksum
from ramole_core.training.prompt_sets import (
    FollowUp,
    read_everyday,
    read_follow_ups,
    read_phrased,
)

if TYPE_CHECKING:
    from ramole_core.ramole import Ramole

METHOD = "ramole_plus"
DOUBT = 1.0
"""Logits: closer to the line than this, the responses decide."""
MIN_PROMPTS = 10
"""Prompts in people's own words; with fewer the examples of the pool take their place."""
RIDGE = 1e-4
"""Of similarities, which differ by tenths; keeps a line finite where the kinds do not overlap."""
STEPS = 50
Cards = dict[str, Float[np.ndarray, "d"]]
Progress = Callable[[str, float], None]
Prompts = Sequence[tuple[str, str]]
"""(text, group) each; a group is a family, or an adapter."""


@dataclass(frozen=True)
class Line:
    """w and c; positive on the wanted side."""

    weights: Float[np.ndarray, "f"]
    offset: float

    def __call__(self, x: Float[np.ndarray, "n f"]) -> Float[np.ndarray, "n"]:
        """Each row's distance to the wanted side, in logits."""
        return x @ self.weights + self.offset


def fit_line(wanted: Float[np.ndarray, "m f"], other: Float[np.ndarray, "n f"]) -> Line:
    """Fit the line between them, by Newton's method."""
    rows = np.vstack([wanted, other]).astype(np.float64)
    rows = np.hstack([rows, np.ones((len(rows), 1))])
    label = np.repeat([1.0, 0.0], [len(wanted), len(other)])
    share = np.repeat([1 / len(wanted), 1 / len(other)], [len(wanted), len(other)])
    ridge = RIDGE * np.append(np.ones(rows.shape[1] - 1), 1e-6)
    w = np.zeros(rows.shape[1])
    for _ in range(STEPS):
        p = 1 / (1 + np.exp(-np.clip(rows @ w, -500, 500)))
        slope = rows.T @ (share * (p - label)) + ridge * w
        bend = (rows * (share * p * (1 - p))[:, None]).T @ rows + np.diag(ridge)
        w = w - np.linalg.solve(bend, slope)
    return Line(w[:-1], float(w[-1]))


def half_of(names: Iterable[str]) -> list[str]:
    """Every other one of the names."""
    return list(dict.fromkeys(names))[::2]


def texts_of(prompts: Prompts, groups: Sequence[str] | None = None) -> list[str]:
    """The texts, those of these groups where some are given."""
    return [text for text, group in prompts if groups is None or group in groups]


def similarities(ramole: "Ramole", texts: Sequence[str], cards: Cards) -> Float[np.ndarray, "n 2"]:
    """best and base of each text."""
    pool = [card for card in ramole.pool.cards() if not card.blind]
    base = ramole.retriever.embed(texts) @ cards["everyday"]
    best = [max(ramole.retriever.similarities(text, pool)) for text in texts]
    return np.column_stack([best, base])


def example_similarities(ramole: "Ramole", cards: Cards) -> Float[np.ndarray, "n 2"]:
    """best and base of each example of the pool; its adapter's mean is that of the others."""
    found = []
    for card in ramole.pool.cards():
        rows = ramole.retriever.embed(card.texts)
        if len(rows) > 1:
            others = unit(rows.sum(0) - rows)
            if words := card_words(card):
                others = with_words(others, ramole.retriever.embed([words])[0])
            own = np.einsum("nd,nd->n", rows, others)
            found.append(np.column_stack([own, rows @ cards["everyday"]]))
    if not found:
        raise RamoleError(
            "No adapter of the pool has two examples or more; add examples, then calibrate."
        )
    return np.vstack(found)


def responses(
    ramole: "Ramole", texts: Sequence[str], *, tell: Progress = lambda *_: None
) -> Float[np.ndarray, "n 2"]:
    """z of the nearest adapter, and the mean over all that are compared, for each text."""
    found, step = [], 16
    for start in range(0, len(texts), step):
        part = [
            Request(text, method=METHOD, k=10**6, abstain=False)
            for text in texts[start : start + step]
        ]
        for candidates in ramole.candidates(part):
            known = [one for one in candidates if one.score == one.score] or candidates
            nearest = max(known, key=lambda one: one.score)
            found.append(
                (nearest.activation_z, float(np.mean([one.activation_z for one in candidates])))
            )
        tell("reading the responses", min(1.0, (start + step) / len(texts)))
    return np.array(found, np.float64).reshape(-1, 2)


def chat_facts(
    ramole: "Ramole", chats: Sequence[FollowUp], cards: Cards
) -> Float[np.ndarray, "n 3"]:
    """Of each second message: go_on, base, and best - leader, the first one's nearest adapter."""
    pool, found = [card for card in ramole.pool.cards() if not card.blind], []
    rows = ramole.retriever.embed([chat.then for chat in chats])
    for chat, row in zip(chats, rows, strict=True):
        first = ramole.retriever.similarities(chat.first, pool)
        then = ramole.retriever.similarities(chat.then, pool)
        ahead = max(then) - then[int(np.argmax(first))]
        found.append((row @ cards["going_on"], row @ cards["everyday"], ahead))
    return np.array(found, np.float64).reshape(-1, 3)


def ahead_of_base(facts: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 1"]:
    """best - slope base."""
    return facts[:, :1] - SimilarityLine().slope * facts[:, 1:]


def going_on(facts: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 1"]:
    """go_on - slope base - gap (best - leader)."""
    return facts[:, :1] - FollowUpLine().slope * facts[:, 1:2] - FollowUpLine().gap * facts[:, 2:]


def similarity_line(margins: Line, *, doubt: float) -> SimilarityLine:
    """The line over best - slope base in units of similarity."""
    scale = _positive(margins, "similarity to the nearest card")
    return SimilarityLine(threshold=-margins.offset / scale, doubt=doubt / scale)


def response_line(line: Line) -> ResponseLine:
    """The line over (best - slope base, z, mean z) in units of similarity."""
    scale = _positive(line, "similarity to the nearest card")
    _, own, every = (float(w) / scale for w in line.weights)
    return ResponseLine(threshold=-line.offset / scale, own=own, all=every)


def blind_line(line: Line) -> BlindLine:
    """The line over (-base, mean z)."""
    slope, every = (float(w) for w in line.weights)
    return BlindLine(slope=slope, threshold=-line.offset, all=every)


def follow_up_line(worth: Line) -> FollowUpLine:
    """The line over go_on - slope base - gap (best - leader) in units of similarity."""
    scale = _positive(worth, "similarity to messages that go on")
    return FollowUpLine(threshold=-worth.offset / scale)


def _positive(line: Line, what: str) -> float:
    first = float(line.weights[0])
    if first <= 0:
        raise RamoleError(
            f"With this encoder the {what} shows nothing (its weight came out as {first:.2f}); "
            "choose another encoder, or train the retriever for it."
        )
    return first


def calibrate_for(
    ramole: "Ramole", *, response: bool = True, command: str = "", tell: Progress = lambda *_: None
) -> Calibration:
    """The lines for this encoder, base and pool. Raises RamoleError where the encoder does not
    separate the two kinds, or the pool is empty.

    Without `response` the base model is not loaded, and similarity decides alone.
    """
    if not ramole.pool.cards():
        raise RamoleError("The pool is empty; add adapters with examples, then calibrate.")
    if all(card.blind for card in ramole.pool.cards()):
        raise RamoleError(
            "The pool has no adapter that shows examples; add adapters with examples, then "
            "calibrate."
        )
    cards = card_vectors(ramole.retriever)
    names = {card.name for card in ramole.pool.cards()}
    everyday = [(one.text, one.family) for one in read_everyday()]
    phrased = [(one.text, one.adapter) for one in read_phrased() if one.adapter in names]
    near = similarities(ramole, texts_of(everyday), cards)
    low = ahead_of_base(near)
    own_words = len(phrased) >= MIN_PROMPTS
    fits = (
        similarities(ramole, texts_of(phrased), cards)
        if own_words
        else example_similarities(ramole, cards)
    )
    high = ahead_of_base(fits)
    tell("comparing prompts", 1.0)
    families, adapters = (half_of(group for _, group in part) for part in (everyday, phrased))
    lows = np.isin([family for _, family in everyday], families)
    highs = np.arange(len(high)) % 2 == 0
    if own_words:
        highs = np.isin([name for _, name in phrased], adapters)
    heard, blind, doubt = ResponseLine(), BlindLine(), 0.0
    if response and own_words:
        loud, quiet = (
            responses(ramole, texts_of(part, half), tell=tell)
            for part, half in ((phrased, adapters), (everyday, families))
        )
        heard = response_line(
            fit_line(np.hstack([high[highs], loud]), np.hstack([low[lows], quiet]))
        )
        blind = blind_line(
            fit_line(
                np.column_stack([-fits[highs, 1], loud[:, 1]]),
                np.column_stack([-near[lows, 1], quiet[:, 1]]),
            )
        )
        doubt = DOUBT
    alone = similarity_line(fit_line(high[highs], low[lows]), doubt=doubt)
    chats = read_follow_ups()
    worth = going_on(chat_facts(ramole, chats, cards))
    goes, used = np.array([chat.continues for chat in chats]), np.arange(len(chats)) % 2 == 0
    kept = follow_up_line(fit_line(worth[goes & used], worth[~goes & used]))
    return Calibration(
        alone=alone,
        heard=heard,
        blind=blind,
        kept=kept,
        encoder=ramole.retriever.encoder_checksum,
        cards=cards_checksum(),
        base=ramole.base_kind if doubt else "",
        vectors={name: [round(float(x), 7) for x in one] for name, one in cards.items()},
        facts={
            "command": command,
            "date": date.today().isoformat(),
            "fitted_on": {
                "families": families,
                "adapters": adapters if own_words else [],
                "examples_of_the_pool": not own_words,
            },
            "pool": sorted(card.name for card in ramole.pool.cards()),
            "percent_of_the_others_by_similarity": {
                "everyday_to_the_base": percent(low[~lows] < alone.threshold),
                "tasks_left_to_the_base": percent(high[~highs] < alone.threshold),
                "follow_ups_kept": percent(worth[goes & ~used] >= kept.threshold),
                "changes_kept": percent(worth[~goes & ~used] >= kept.threshold),
            },
        },
    )


def percent(is_so: Bool[np.ndarray, "..."]) -> float:
    """The share in percent."""
    return round(100 * float(is_so.mean()), 1)
