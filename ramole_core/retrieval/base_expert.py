"""The base model as an expert of its own: its card is weighed against the adapters'.

`calibration.py` has the lines. Where none was fitted for this encoder, the nearest card wins, and
no message keeps the adapters of the turn before.
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32

from ramole_core.evidence import Evidence
from ramole_core.retrieval.calibration import Calibration, read_calibration
from ramole_core.retrieval.encoder import unit
from ramole_core.retrieval.own_cards import GOING_ON, cards_checksum, everyday_texts
from ramole_core.retrieval.retriever import Hit


@runtime_checkable
class Vectors(Protocol):
    """What the base's card needs of a retriever."""

    @property
    def encoder_checksum(self) -> str: ...
    def embed(self, texts: Sequence[str]) -> Float32[np.ndarray, "n d"]: ...
    def vectors(self, texts: Sequence[str]) -> list[Float32[np.ndarray, "d"]]: ...


class BaseExpert:
    """Says whether a text belongs to the adapters, to the base, or to the turn before."""

    def __init__(self, retriever: Vectors, *, folder: Path, base: Callable[[], str]):
        """`folder` may hold a calibration, `base` tells the base model's kind. Nothing is read
        yet."""
        self._retriever, self._folder, self._base = retriever, folder, base

    @cached_property
    def _fitted(self) -> Calibration | None:
        """What was fitted for this encoder and these cards; None: nothing."""
        found = read_calibration(self._folder)
        if found is None or found.cards != cards_checksum():
            return None
        return found if found.encoder == self._retriever.encoder_checksum else None

    @cached_property
    def calibration(self) -> Calibration:
        """The lines and vectors in use. Raises RamoleError where the file is broken."""
        if self._fitted is not None:
            return self._fitted
        vectors = card_vectors(self._retriever)
        return Calibration(vectors={name: one.tolist() for name, one in vectors.items()})

    @property
    def calibrated(self) -> bool:
        """Whether the lines were fitted for this encoder."""
        return self._fitted is not None

    def judge(self, text: str, hits: Sequence[Hit]) -> Evidence:
        """Whether adapters answer this text, by similarity alone; `hits`: the nearest first, none
        where the pool is empty."""
        if not hits:
            return Evidence("base")
        line, base = self.calibration.alone, self._similarity(text, "everyday")
        needed = line.threshold + line.slope * base
        best = hits[0].score
        return Evidence(
            "adapters" if best >= needed else "base",
            nearest=hits[0].name,
            similarity=best,
            base_similarity=base,
            threshold=needed,
            calibrated=self.calibrated,
        )

    def doubts(self, evidence: Evidence) -> bool:
        """Whether the adapters' responses should decide."""
        calibration = self.calibration
        near = abs(evidence.similarity - evidence.threshold) < calibration.alone.doubt
        return near and evidence.nearest is not None and calibration.base == self._base()

    def hear(self, evidence: Evidence, surprises: Sequence[float]) -> Evidence:
        """The decision by the responses of the adapters that were asked, the nearest first."""
        line = self.calibration.heard
        worth = evidence.similarity - line.slope * evidence.base_similarity
        worth += line.own * surprises[0] + line.all * float(np.mean(surprises))
        return evidence.by_response(worth - line.threshold)

    def goes_on(self, text: str, nearest: Hit, leader: Hit) -> Evidence | None:
        """Why the adapters of the turn before, `leader` first, answer this text too; None: it says
        itself what it wants, or nothing was fitted."""
        if not self.calibrated:
            return None
        line, base = self.calibration.kept, self._similarity(text, "everyday")
        ahead = nearest.score - leader.score
        worth = self._similarity(text, "going_on") - line.slope * base - line.gap * ahead
        if worth < line.threshold:
            return None
        return Evidence(
            "kept",
            nearest=nearest.name,
            similarity=nearest.score,
            base_similarity=base,
            threshold=nearest.score + (worth - line.threshold) / max(line.gap, 1e-6),
            leader=leader.name,
            leader_similarity=leader.score,
        )

    def _similarity(self, text: str, card: str) -> float:
        return float(self._retriever.vectors([text])[0] @ self._vectors[card])

    @cached_property
    def _vectors(self) -> dict[str, Float32[np.ndarray, "d"]]:
        return {name: self.calibration.vector(name) for name in self.calibration.vectors}


def card_vectors(retriever: Vectors) -> dict[str, Float32[np.ndarray, "d"]]:
    """The unit-length means over the two cards, as an adapter's vector is one."""
    cards = {"everyday": everyday_texts(), "going_on": GOING_ON}
    return {
        name: unit(retriever.embed(texts).mean(0, keepdims=True))[0]
        for name, texts in cards.items()
    }
