"""The nearest adapters by their vectors alone: what any index has to find."""

from collections.abc import Sequence

from ramole_core.retrieval.card_vector import adapter_vectors


def nearest(encoder, cards: Sequence, text: str, k: int) -> list[str]:
    """Names, best first."""
    vectors = adapter_vectors(encoder.embed, list(cards))
    scores = vectors @ encoder.embed([text])[0]
    best = sorted(range(len(scores)), key=lambda n: (-scores[n], cards[n].name))
    return [cards[n].name for n in best[:k]]
