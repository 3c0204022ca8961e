"""Fits where the base answers, and where a follow-up keeps its adapters: `calibrate`.

The lines are fitted on half of the written prompts: every other family of everyday prompts, every
other adapter's prompts in people's own words, every other chat. The other halves say what the lines
are worth. Of a pool without such prompts, its adapters' examples are used, each against the mean of
the others.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from ramole_core.errors import RamoleError
from ramole_core.evaluation.lines import Line, fit_line, half_of
from ramole_core.evaluation.prompt_sets import (
    FollowUp,
    read_everyday,
    read_follow_ups,
    read_phrased,
)
from ramole_core.request import Request
from ramole_core.retrieval.base_expert import card_vectors
from ramole_core.retrieval.calibration import Alone, Calibration, Heard, Kept
from ramole_core.retrieval.encoder import unit
from ramole_core.retrieval.own_cards import cards_checksum

if TYPE_CHECKING:
    from ramole_core.ramole import Ramole

METHOD = "ramole_plus"
DOUBT = 1.0
"""Logits: closer to the line than this, the responses decide."""
FEWEST = 10
"""Prompts in people's own words; with fewer the examples of the pool take their place."""
Cards = dict[str, Float[np.ndarray, "d"]]
Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Texts:
    """Prompts of one kind, and the group that each belongs to: its family, or its adapter."""

    texts: tuple[str, ...]
    groups: tuple[str, ...]

    def half(self, chosen: Sequence[str]) -> "Texts":
        """Those of the chosen groups."""
        kept = [pair for pair in zip(self.texts, self.groups, strict=True) if pair[1] in chosen]
        return Texts(tuple(t for t, _ in kept), tuple(g for _, g in kept))


def everyday_prompts() -> Texts:
    """What the base answers best."""
    found = read_everyday()
    return Texts(tuple(p.text for p in found), tuple(p.family for p in found))


def phrased_prompts(ramole: "Ramole") -> Texts:
    """What the adapters of the pool do, in people's own words."""
    names = {card.name for card in ramole.pool.cards()}
    found = [prompt for prompt in read_phrased() if prompt.adapter in names]
    return Texts(tuple(p.text for p in found), tuple(p.adapter for p in found))


def similarities(ramole: "Ramole", texts: Sequence[str], cards: Cards) -> Float[np.ndarray, "n 2"]:
    """best and base of each text."""
    pool = ramole.pool.cards()
    base = ramole.retriever.embed(texts) @ cards["everyday"]
    best = [max(ramole.retriever.similarities(text, pool)) for text in texts]
    return np.column_stack([best, base])


def example_similarities(ramole: "Ramole", cards: Cards) -> Float[np.ndarray, "n 2"]:
    """best and base of each example of the pool, its own adapter's mean being that of the others."""
    found = []
    for card in ramole.pool.cards():
        rows = ramole.retriever.embed(card.texts)
        if len(rows) > 1:
            others = unit(rows.sum(0) - rows)
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
    """z of the nearest adapter, and the mean over all that are asked, for each text."""
    found, step = [], 16
    for start in range(0, len(texts), step):
        part = [
            Request(text, method=METHOD, k=10**6, abstain=False)
            for text in texts[start : start + step]
        ]
        for candidates in ramole.candidates(part):
            nearest = max(candidates, key=lambda one: one.score)
            everyone = np.mean([one.surprise for one in candidates])
            found.append((nearest.surprise, float(everyone)))
        tell("hearing the adapters", min(1.0, (start + step) / len(texts)))
    return np.array(found, np.float64).reshape(-1, 2)


def chat_facts(
    ramole: "Ramole", chats: Sequence[FollowUp], cards: Cards
) -> Float[np.ndarray, "n 3"]:
    """Of each second message: go_on, base, and best - leader, the first one's nearest adapter."""
    pool, found = ramole.pool.cards(), []
    rows = ramole.retriever.embed([chat.then for chat in chats])
    for chat, row in zip(chats, rows, strict=True):
        first = ramole.retriever.similarities(chat.first, pool)
        then = ramole.retriever.similarities(chat.then, pool)
        ahead = max(then) - then[int(np.argmax(first))]
        found.append((row @ cards["going_on"], row @ cards["everyday"], ahead))
    return np.array(found, np.float64).reshape(-1, 3)


def alone_of(line: Line, *, doubt: float) -> Alone:
    """The line over (best, base) in units of similarity."""
    best, base = _positive(line, "best similarity"), line.weights[1]
    return Alone(slope=float(-base / best), threshold=-line.offset / best, doubt=doubt / best)


def heard_of(line: Line) -> Heard:
    """The line over (best, base, z, mean z) in units of similarity."""
    best = _positive(line, "best similarity")
    _, base, own, every = (float(w) / best for w in line.weights)
    return Heard(slope=-base, threshold=-line.offset / best, own=own, all=every)


def kept_of(line: Line) -> Kept:
    """The line over (go_on, base, ahead) in units of similarity."""
    go_on = _positive(line, "similarity to messages that go on")
    _, base, ahead = (float(w) / go_on for w in line.weights)
    return Kept(slope=-base, gap=max(0.0, -ahead), threshold=-line.offset / go_on)


def _positive(line: Line, what: str) -> float:
    first = float(line.weights[0])
    if first <= 0:
        raise RamoleError(
            f"With this encoder the {what} tells nothing (its weight came out as {first:.2f}); "
            "choose another encoder, or train the retriever for it."
        )
    return first


def calibrate_for(
    ramole: "Ramole", *, response: bool = True, command: str = "", tell: Progress = lambda *_: None
) -> Calibration:
    """The lines for this encoder, base and pool. Raises RamoleError where the encoder cannot tell
    the two kinds apart, or the pool is empty.

    Without `response` the base model is not loaded, and similarity decides alone.
    """
    if not ramole.pool.cards():
        raise RamoleError("The pool is empty; add adapters with examples, then calibrate.")
    cards = card_vectors(ramole.retriever)
    everyday, phrased = everyday_prompts(), phrased_prompts(ramole)
    families = half_of(everyday.groups)
    low = everyday.half(families)
    base_side = similarities(ramole, low.texts, cards)
    tell("comparing prompts", 0.3)
    own_words = len(phrased.texts) >= FEWEST
    adapters = half_of(phrased.groups) if own_words else []
    high = phrased.half(adapters)
    side = (
        similarities(ramole, high.texts, cards)
        if own_words
        else example_similarities(ramole, cards)
    )
    line = fit_line(side, base_side)
    heard, doubt = Heard(), 0.0
    if response and own_words:
        both = [responses(ramole, part.texts, tell=tell) for part in (high, low)]
        heard = heard_of(fit_line(np.hstack([side, both[0]]), np.hstack([base_side, both[1]])))
        doubt = DOUBT
    chats = read_follow_ups()
    facts = chat_facts(ramole, chats, cards)
    goes = np.array([chat.continues for chat in chats])
    used = np.arange(len(chats)) % 2 == 0
    kept = kept_of(fit_line(facts[goes & used], facts[~goes & used]))
    return Calibration(
        alone=alone_of(line, doubt=doubt),
        heard=heard,
        kept=kept,
        encoder=ramole.retriever.encoder_checksum,
        cards=cards_checksum(),
        base=ramole.settings.base_model if doubt else "",
        vectors={name: [round(float(x), 7) for x in one] for name, one in cards.items()},
        facts={
            "command": command,
            "date": date.today().isoformat(),
            "fitted_on": {
                "everyday families": families,
                "adapters in own words": adapters,
                "examples of the pool": not own_words,
                "chats": int(used.sum()),
            },
            "pool": sorted(card.name for card in ramole.pool.cards()),
        },
    )
