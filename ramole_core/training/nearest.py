"""The adapters that are found for a row, as the retriever that serves would find them."""

import hashlib
import json
from collections.abc import Sequence

import numpy as np

from ramole_core.retrieval import Encoder
from ramole_core.retrieval.card_vector import adapter_vectors, card_texts
from ramole_core.retrieval.kept_index import Card
from ramole_core.training.companions import Near


def nearest_of(cards: Sequence[Card], encoder: Encoder) -> Near:
    """Orders these adapters by the cosine of their vectors (`card_vector.py`) to each text."""
    vectors = adapter_vectors(encoder.embed, cards)
    names = [card.name for card in cards]

    def near(texts: Sequence[str]) -> list[list[str]]:
        cosines = encoder.embed(texts) @ vectors.T
        return [[names[at] for at in np.argsort(-row, kind="stable")] for row in cosines]

    told = json.dumps([encoder.checksum, [[c.name, card_texts(c)] for c in cards]])
    return Near(near, hashlib.sha256(told.encode()).hexdigest())
