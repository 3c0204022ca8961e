"""The index's vectors in memory: the k nearest by one matrix product, exact at any size.

The product is float32; whatever it puts near the k-th place is ordered again in float64, so that
ties and scores are those of brute force.
"""

from collections.abc import Collection, Sequence

import numpy as np
from jaxtyping import Float32, Float64

DIGITS = 6
"""Cosines that agree to this many decimals are a tie, and the name decides."""

_SLACK = 1e-4  # how far a float32 cosine is trusted
_ROOM = 64  # rows of the first allocation; it doubles


class Mirror:
    """Vectors by key, as rows of one matrix; rows move, keys do not. Not thread-safe."""

    def __init__(self, vectors: dict[str, Float32[np.ndarray, "d"]]):
        self._keys: list[str] = []
        self._places: dict[str, int] = {}
        self._rows = np.zeros((0, 0), np.float32)
        self._lengths = np.zeros(0, np.float32)
        self.put(vectors)

    def put(self, vectors: dict[str, Float32[np.ndarray, "d"]]) -> None:
        """Add the vectors, or put them in the place of those with the same keys."""
        if not vectors:
            return
        self._make_room(len(self._keys) + len(vectors), d=len(next(iter(vectors.values()))))
        for key, vector in vectors.items():
            place = self._places.setdefault(key, len(self._keys))
            if place == len(self._keys):
                self._keys.append(key)
            self._rows[place] = vector
            self._lengths[place] = np.linalg.norm(vector)

    def drop(self, keys: Sequence[str]) -> None:
        """Take the keys out; one that is not there is passed over."""
        for key in keys:
            place = self._places.pop(key, None)
            if place is None:
                continue
            last = self._keys.pop()
            if last != key:  # the last row moves into the gap
                self._keys[place], self._places[last] = last, place
                self._rows[place] = self._rows[len(self._keys)]
                self._lengths[place] = self._lengths[len(self._keys)]

    def query(
        self, vector: Float32[np.ndarray, "d"], *, k: int, among: Collection[str]
    ) -> list[tuple[str, float]]:
        """The k keys of `among` with the largest cosine to `vector`, best first, ties by name.

        Raises ValueError where the vector has another dimension than the rows.
        """
        places = self._places
        mask = np.fromiter((places[key] for key in among if key in places), np.int64)
        if not len(mask):
            return []
        if len(vector) != self._rows.shape[1]:
            raise ValueError(
                f"a vector of dimension {len(vector)} among rows of dimension {self._rows.shape[1]}"
            )
        n = len(self._keys)
        lengths = self._lengths[:n] * np.linalg.norm(vector)
        # not `@`: from 1,000 rows on its threads and torch's get in each other's way
        products = np.einsum("nd,d->n", self._rows[:n], vector)
        cosine = products / np.where(lengths > 0, lengths, np.inf)
        near = cosine[mask]
        least = np.partition(near, len(near) - k)[len(near) - k] if k < len(near) else -np.inf
        close = mask[near >= least - _SLACK]
        return rank(vector, {self._keys[place]: self._rows[place] for place in close})[:k]

    def _make_room(self, n: int, *, d: int) -> None:
        held = len(self._keys)
        if held and d != self._rows.shape[1]:
            raise ValueError(f"a vector of dimension {d} among rows of {self._rows.shape[1]}")
        if n > len(self._rows) or d != self._rows.shape[1]:
            room = max(n, 2 * len(self._rows), _ROOM)
            rows, lengths = np.zeros((room, d), np.float32), np.zeros(room, np.float32)
            if held:
                rows[:held], lengths[:held] = self._rows[:held], self._lengths[:held]
            self._rows, self._lengths = rows, lengths


def rank(
    vector: Float32[np.ndarray, "d"], vectors: dict[str, Float32[np.ndarray, "d"]]
) -> list[tuple[str, float]]:
    """Every key with its cosine to `vector`, best first: brute force, in float64."""
    if not vectors:
        return []
    keys = list(vectors)
    scores = cosines(vector, np.stack([vectors[key] for key in keys]))
    pairs = [(key, float(score)) for key, score in zip(keys, scores, strict=True)]
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
