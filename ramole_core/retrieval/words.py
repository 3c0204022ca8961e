"""The words of a text as a vector: single words and pairs, hashed, weighted by how rare they are.

A task's prompts share a template, and a template is made of the same words in the same order; a
sentence encoder blurs just that. Weight of a word or pair seen c times: (1 + ln c) idf, put at a
hashed place with a hashed sign (feature hashing, arXiv 0902.2206), so that a dot product of two
vectors is that of the two bags but for a noise of about 1 / sqrt(d).
"""

import re
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float32, Int64

BUCKETS = 1 << 14
"""Words and pairs share this many document frequencies."""

_TOKEN = re.compile(r"\w+|[^\w\s]|\n")
_LONGEST = 20_000  # characters


def word_vectors(
    texts: Sequence[str], idf: Float32[np.ndarray, "buckets"], *, d: int
) -> Float32[np.ndarray, "n d"]:
    """Vectors of unit length; a text without words stays zero. `d` is a power of two."""
    rows = np.zeros((len(texts), d), np.float32)
    for row, text in zip(rows, texts, strict=True):
        hashes, counts = _hashed(text)
        weights = (1 + np.log(counts)) * idf[hashes % BUCKETS]
        mixed = (hashes * 2654435761) & 0xFFFFFFFF  # Knuth's: places apart from the buckets
        signs = 1.0 - 2.0 * ((hashes >> 31) & 1)
        np.add.at(row, mixed >> (33 - d.bit_length()), signs * weights)
        row /= np.linalg.norm(row) or 1
    return rows


def inverse_frequencies(texts: Iterable[str]) -> Float32[np.ndarray, "buckets"]:
    """ln((1 + n) / (1 + texts with it)) + 1 of each bucket."""
    seen, n = np.zeros(BUCKETS), 0
    for text in texts:
        seen[np.unique(_hashed(text)[0] % BUCKETS)] += 1
        n += 1
    return (np.log((1 + n) / (1 + seen)) + 1).astype(np.float32)


def _hashed(text: str) -> tuple[Int64[np.ndarray, "f"], Int64[np.ndarray, "f"]]:
    """The hashes of a text's words and pairs, and how often each is there."""
    tokens = _TOKEN.findall(text[:_LONGEST].lower())
    bag = Counter(tokens)
    bag.update(f"{a} {b}" for a, b in zip(tokens, tokens[1:], strict=False))
    hashes = [zlib.crc32(word.encode("utf-8", "replace")) for word in bag]
    return np.array(hashes, np.int64), np.array(list(bag.values()), np.int64)
