"""The evidence for what answers: the adapters found, the base, or those of the turn before."""

from dataclasses import dataclass, replace
from typing import Literal

Decision = Literal["adapters", "base", "kept"]


@dataclass(frozen=True)
class Evidence:
    """The decision on what answers where adapters were searched, and its numbers."""

    decision: Decision
    """`base`: none fits, the base model alone; `kept`: the adapters of the turn before."""
    nearest: str | None = None
    """The adapter nearest to the text, of those that show examples; None: there is none."""
    similarity: float = 0.0
    """Its cosine to the text."""
    base_similarity: float = 0.0
    """That of the base model's own card, everyday prompts."""
    threshold: float = 0.0
    """The least similarity at which adapters answer this text."""
    response: float | None = None
    """Where the adapters' responses decided: by how much they were above (or below) what was
    needed, in units of similarity (in logits where one without examples was examined)."""
    blind: int = 0
    """Number of adapters without examples that were examined beside the nearest."""
    leader: str | None = None
    """The first adapter of the turn before, where that was considered; that which responds most of
    those without examples, where these decided."""
    leader_similarity: float | None = None
    """Its cosine to the text."""
    calibrated: bool = True
    """False: no threshold was fitted for this encoder, and the nearest card wins."""
    own: bool = False
    """Whether the nearest is an upload of the request's owner, which need only be nearer than the
    base model's card."""

    @property
    def sentence(self) -> str:
        """The decision in words."""
        if self.nearest is None and self.decision == "kept":
            return (
                "The message names no task of its own, so the adapters of the turn before answer, "
                f"{self.leader} first."
            )
        if self.nearest is None:
            return self._without_examples()
        near = f"{self.nearest}, the nearest adapter, has similarity {self.similarity:.2f}"
        if self.decision == "kept":
            return (
                f"The message names no task of its own ({near}), so the adapters of the turn "
                f"before answer, {self.leader} first."
            )
        if self.by_one_without_examples:
            why = f"{near}, and {self.threshold:.2f} is needed; {self._most()}"
        elif self.response is None:
            why = f"{near}, and {self.threshold:.2f} is needed"
        else:
            why = (
                f"{near}, too close to the {self.threshold:.2f} that is needed to tell, and the "
                f"adapters {self._response()}"
            )
        why += f" (everyday prompts: {self.base_similarity:.2f}"
        why += ")" if self.calibrated else "; not calibrated for this encoder)"
        if self.decision == "base":
            return f"No adapter fits, so the base model answers alone: {why}."
        return f"Adapters answer: {why}."

    @property
    def by_one_without_examples(self) -> bool:
        """Whether an adapter without examples was examined, and decided."""
        return self.decision != "kept" and self.leader is not None

    def _without_examples(self) -> str:
        if not self.blind:
            return "The pool is empty, so the base model answers alone."
        why = "No adapter in sight shows examples, so"
        if self.leader is None:
            return f"{why} similarity tells nothing, and adapters answer."
        if self.decision == "base":
            return f"{why} the base model answers alone: {self._most()}."
        return f"{why} adapters answer by response: {self._most()}."

    def _response(self) -> str:
        enough = "strongly enough" if self.decision == "adapters" else "too weakly"
        return f"respond to these words {enough}, by {abs(self.response or 0):.2f}"

    def _most(self) -> str:
        if self.blind < 2:
            return f"the adapters {self._response()}, {self.leader} most"
        return (
            f"the adapters {self._response()}, {self.leader} most of the {self.blind} that show no "
            "examples"
        )

    def record(self) -> dict[str, object]:
        """For JSON: every number rounded, and the sentence."""
        said = {name: _rounded(value) for name, value in vars(self).items()}
        return {**said, "sentence": self.sentence}

    def by_response(self, margin: float) -> "Evidence":
        """The decision by the adapters' responses."""
        return replace(self, decision="adapters" if margin >= 0 else "base", response=margin)

    def by_blind(self, leader: str, margin: float) -> "Evidence":
        """The decision by the response of an adapter without examples."""
        return replace(self.by_response(margin), leader=leader)


def _rounded(value: object) -> object:
    return round(value, 4) if isinstance(value, float) else value
