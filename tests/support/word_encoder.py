"""An encoder without a model: a text's vector is made of its words, so alike texts are near."""

import hashlib
import re
from collections.abc import Sequence

import numpy as np

SIZE = 64


class WordEncoder:
    """Each word is a random direction, always the same; a text is their sum, of unit length."""

    checksum = "words"

    def count_tokens(self, texts: Sequence[str]) -> int:
        return sum(len(text.split()) for text in texts)

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        rows = [sum(map(_direction, re.findall(r"\w+", t.lower())), _direction("")) for t in texts]
        made = np.array(rows, np.float32)
        return made / np.linalg.norm(made, axis=1, keepdims=True)


def _direction(word: str) -> np.ndarray:
    seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8])
    return np.random.default_rng(seed).normal(size=SIZE) * (1 if word else 0.1)
