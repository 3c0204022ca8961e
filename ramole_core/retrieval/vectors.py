"""Vectors in memory: the k nearest by one matrix product, exact at any size.

The product is float32; whatever it puts near the k-th place is ordered again in float64, so that
ties and scores are those of brute force. Chroma's own graph cannot replace it: of 10,000 vectors it
finds 15 to 18 by no query, and to ask it for all the others takes 14 to 18 times as long (LOG.md).
"""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from jaxtyping import Float32, Float64

DIGITS = 6
"""Cosines that agree to this many decimals are a tie, and the name decides."""
SLACK = 1e-4
"""How far a float32 cosine is trusted."""
FIRST_ROWS = 64
"""Rows of the first allocation; it doubles."""


class Vectors:
    """Vectors by key, as rows of one matrix. Not thread-safe."""

    def __init__(self):
        self._places: dict[str, int] = {}
        self._keys: list[str] = []
        """By row; of a row that is free, the last one."""
        self._free: list[int] = []
        self._rows, self._lengths = np.zeros((0, 0), np.float32), np.zeros(0, np.float32)

    def put(self, vectors: Mapping[str, Float32[np.ndarray, "d"]]) -> None:
        """Add the vectors, or replace those with the same keys."""
        for key, vector in vectors.items():
            if not self._places:  # whatever dimension the earlier ones had
                room = max(FIRST_ROWS, len(vectors))
                self._keys, self._free = [], []
                self._rows = np.zeros((room, len(vector)), np.float32)
                self._lengths = np.zeros(room, np.float32)
            self._fits(vector)
            if key not in self._places:
                place = self._places[key] = self._free.pop() if self._free else len(self._keys)
                self._keys[place : place + 1] = [key]
                if place == len(self._rows):
                    self._rows = np.concatenate([self._rows, np.zeros_like(self._rows)])
                    self._lengths = np.concatenate([self._lengths, np.zeros_like(self._lengths)])
            place = self._places[key]
            self._rows[place], self._lengths[place] = vector, np.linalg.norm(vector)

    def drop(self, keys: Sequence[str]) -> None:
        """Delete the keys; unknown ones are ignored."""
        self._free += [self._places.pop(key) for key in set(keys) if key in self._places]

    def query(
        self, vector: Float32[np.ndarray, "d"], *, k: int, among: Collection[str]
    ) -> list[tuple[str, float]]:
        """The k keys of `among` with the largest cosine to `vector`, best first, ties by name.

        Raises ValueError where the vector has another dimension than the rows.
        """
        held, n = self._places, len(self._keys)
        places = np.fromiter((held[key] for key in among if key in held), np.int64)
        if not len(places):
            return []
        self._fits(vector)
        # not `@`: from 1,000 rows on its threads and torch's get in each other's way
        products = np.einsum("nd,d->n", self._rows[:n], vector)
        lengths = self._lengths[:n] * np.linalg.norm(vector)
        near = (products / np.where(lengths > 0, lengths, np.inf))[places]
        least = np.partition(near, len(near) - k)[len(near) - k] if k < len(near) else -np.inf
        close = places[near >= least - SLACK]
        return rank(vector, {self._keys[place]: self._rows[place] for place in close})[:k]

    def _fits(self, vector: Float32[np.ndarray, "d"]) -> None:
        if len(vector) != self._rows.shape[1]:
            raise ValueError(
                f"a vector of dimension {len(vector)} among rows of dimension {self._rows.shape[1]}"
            )


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
