"""The base model as an expert of its own, its card compared with the adapters'.

`calibration.py` has the lines. Where none was fitted for this encoder, the nearest card wins, and
no message keeps the adapters of the turn before.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
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
class VectorSource(Protocol):
    """The interface of a retriever, as the base's card needs it."""

    @property
    def encoder_checksum(self) -> str: ...
    def embed(self, texts: Sequence[str]) -> Float32[np.ndarray, "n d"]: ...
    def vectors(self, texts: Sequence[str]) -> list[Float32[np.ndarray, "d"]]: ...


class BaseExpert:
    """Decide whether a text is for the adapters, the base, or the turn before."""

    def __init__(self, retriever: VectorSource, *, folder: Path, base: Callable[[], str]):
        """`folder` may hold a calibration, `base` gives the base model's kind. Nothing is read
        yet."""
        self._retriever, self._folder, self._base = retriever, folder, base

    @cached_property
    def _fitted(self) -> Calibration | None:
        """The calibration for this encoder and these cards; None: there is none."""
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

    def judge(self, text: str, hits: Sequence[Hit], *, blind: int = 0) -> Evidence:
        """Decide whether adapters answer this text, by similarity alone; `hits`: the nearest first
        of those that show examples, beside `blind` that show none."""
        if not hits and not blind:
            return Evidence("base")
        line, base = self.calibration.alone, self._similarity(text, "everyday")
        evidence = Evidence(
            "adapters", base_similarity=base, blind=blind, calibrated=self.calibrated
        )
        if not hits:
            return evidence
        own, best = hits[0].owner is not None, hits[0].score
        needed = line.slope * base + (min(line.threshold, 0) if own else line.threshold)
        return replace(
            evidence,
            decision="adapters" if best >= needed else "base",
            nearest=hits[0].name,
            similarity=best,
            threshold=needed,
            own=own,
        )

    def needed(self, vector: Float32[np.ndarray, "d"]) -> float:
        """The least similarity at which adapters answer a text with this vector."""
        line = self.calibration.alone
        return line.threshold + line.slope * float(vector @ self._vectors["everyday"])

    def doubts(self, evidence: Evidence) -> bool:
        """Whether the adapters' responses should decide."""
        calibration = self.calibration
        if calibration.base != self._base():
            return False
        if evidence.blind and (evidence.nearest is None or evidence.decision == "base"):
            return True
        return evidence.nearest is not None and self._is_near(evidence)

    def decide_by_activation(
        self, evidence: Evidence, surprises: Sequence[float], blind: Mapping[str, float] = {}
    ) -> Evidence:
        """The decision by the examined adapters' responses: those with examples, the nearest first,
        and those without, by name."""
        everyone = float(np.mean([*surprises, *blind.values()]))
        if surprises and self._is_near(evidence):
            line = self.calibration.heard
            worth = evidence.similarity - line.slope * evidence.base_similarity
            worth += line.own * surprises[0] + line.all * everyone
            evidence = evidence.by_response(worth - line.threshold)
        if blind and (not surprises or evidence.decision == "base"):
            line, loudest = self.calibration.blind, max(blind, key=lambda name: blind[name])
            worth = line.all * everyone - line.slope * evidence.base_similarity
            evidence = evidence.by_blind(loudest, worth - line.threshold)
        return evidence

    def _is_near(self, evidence: Evidence) -> bool:
        distance = abs(evidence.similarity - evidence.threshold)
        known = evidence.nearest is not None and not evidence.own
        return known and distance < self.calibration.alone.doubt

    def goes_on(self, text: str, nearest: Hit | None, leader: Hit) -> Evidence | None:
        """The evidence for keeping the adapters of the turn before, `leader` first; None: the text
        stands alone, or nothing was fitted. No adapter is nearest where none shows examples; a
        leader that shows none has a score of nan, and none is ahead of it."""
        if not self.calibrated:
            return None
        line, base = self.calibration.kept, self._similarity(text, "everyday")
        similarity = nearest.score if nearest is not None else 0.0
        known = leader.score == leader.score
        ahead = similarity - leader.score if nearest is not None and known else 0.0
        worth = self._similarity(text, "going_on") - line.slope * base - line.gap * ahead
        if worth < line.threshold:
            return None
        return Evidence(
            "kept",
            nearest=nearest.name if nearest else None,
            similarity=similarity,
            base_similarity=base,
            threshold=similarity + (worth - line.threshold) / max(line.gap, 1e-6),
            leader=leader.name,
            leader_similarity=leader.score if known else None,
        )

    def _similarity(self, text: str, card: str) -> float:
        return float(self._retriever.vectors([text])[0] @ self._vectors[card])

    @cached_property
    def _vectors(self) -> dict[str, Float32[np.ndarray, "d"]]:
        return {name: self.calibration.vector(name) for name in self.calibration.vectors}


def card_vectors(retriever: VectorSource) -> dict[str, Float32[np.ndarray, "d"]]:
    """The unit-length means over the two cards, as an adapter's vector is one."""
    cards = {"everyday": everyday_texts(), "going_on": GOING_ON}
    return {
        name: unit(retriever.embed(texts).mean(0, keepdims=True))[0]
        for name, texts in cards.items()
    }
