"""Vectors in memory: the k nearest by one matrix product, exact at any size.

The product is float32; whatever it puts near the k-th place is ordered again in float64, so that
ties and scores are those of brute force. Chroma's own graph cannot replace it: of 10,000 vectors it
finds 15 to 18 by no query, and requesting all the others takes 14 to 18 times as long (LOG.md).
"""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from jaxtyping import Float32, Float64

DIGITS = 6
"""Cosines that agree to this many decimals are a tie, and the name decides."""
MAX_ERROR = 1e-4
"""Largest error of a float32 cosine."""


class Vectors:
    """Vectors by key, and a matrix of them that is made where it is needed. Not thread-safe."""

    def __init__(self):
        self._held: dict[str, np.ndarray] = {}
        self._made: tuple[list[str], np.ndarray, np.ndarray] | None = None
        """Keys, rows and their lengths; None where vectors were added or dropped since."""

    def put(self, vectors: Mapping[str, Float32[np.ndarray, "d"]]) -> None:
        """Add the vectors, or replace those with the same keys."""
        for key, vector in vectors.items():
            self._fits(vector)
            self._held[key] = vector
        self._made = None

    def drop(self, keys: Sequence[str]) -> None:
        """Delete the keys; unknown ones are ignored."""
        for key in keys:
            self._held.pop(key, None)
        self._made = None

    def query(
        self, vector: Float32[np.ndarray, "d"], *, k: int, among: Collection[str]
    ) -> list[tuple[str, float]]:
        """The k keys of `among` with the largest cosine to `vector`, best first, ties by name.

        Raises ValueError where the vector has another dimension than the rows.
        """
        if not self._held:
            return []
        self._fits(vector)
        if self._made is None:
            rows = np.stack(list(self._held.values()))
            self._held = dict(zip(self._held, rows, strict=True))  # no second copy is kept
            self._made = list(self._held), rows, np.linalg.norm(rows, axis=1)
        keys, rows, lengths = self._made
        # not `@`: from 1,000 rows on its threads and torch's get in each other's way
        products = np.einsum("nd,d->n", rows, vector)
        lengths = lengths * np.linalg.norm(vector)
        near = products / np.where(lengths > 0, lengths, np.inf)
        places = np.flatnonzero([key in among for key in keys])
        last = np.sort(near[places])[-k:][:1]
        close = places[near[places] >= last - MAX_ERROR]
        return rank(vector, {keys[place]: rows[place] for place in close})[:k]

    def _fits(self, vector: Float32[np.ndarray, "d"]) -> None:
        d = len(next(iter(self._held.values()), vector))
        if len(vector) != d:
            raise ValueError(f"a vector of dimension {len(vector)} among rows of dimension {d}")


def rank(
    vector: Float32[np.ndarray, "d"], vectors: Mapping[str, Float32[np.ndarray, "d"]]
) -> list[tuple[str, float]]:
    """Every key with its cosine to `vector`, best first: brute force, in float64."""
    if not vectors:
        return []
    scores = cosines(vector, np.stack(list(vectors.values()))).tolist()
    pairs = zip(vectors, scores, strict=True)
    return sorted(pairs, key=lambda pair: (-round(pair[1], DIGITS), plain_name(pair[0]), pair[0]))


def cosines(
    vector: Float32[np.ndarray, "d"], rows: Float32[np.ndarray, "n d"]
) -> Float64[np.ndarray, "n"]:
    """The cosine of each row to `vector`; 0 where a length is 0."""
    v, x = vector.astype(np.float64), rows.astype(np.float64)
    # summed row by row: a matrix product may give two equal rows two different last digits
    lengths = np.sqrt((x * x).sum(1) * (v * v).sum())
    return (x * v).sum(1) / np.where(lengths > 0, lengths, np.inf)


def plain_name(key: str) -> str:
    """The name in `owner/name`."""
    return key.rpartition("/")[2]
