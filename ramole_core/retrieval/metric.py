"""A retriever's metric: the encoder's vector with a task's own variation shrunk, and the words.

    v(text) = [ sqrt(1 - s) unit(M e(text)),  sqrt(s) w(text) ]

e is the encoder, M what tuning learnt, w the hashed words, s their share. v has unit length, so a
cosine of two v is (1 - s) of the one and s of the other, and an adapter's vector stays the mean
over its examples: index, search and scores are independent of it.

A task's prompts share a template, and a template is made of the same words in the same order; a
sentence encoder blurs just that. Weight of a word or pair seen c times: (1 + ln c) idf, put at a
hashed place with a hashed sign (feature hashing, arXiv 0902.2206), so that a dot product of two
vectors is that of the two bags but for a noise of about 1 / sqrt(d).
"""

import re
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64

from ramole_core.errors import RamoleError

METRIC = "metric.safetensors"
BUCKETS = 1 << 14
"""Words and pairs share this many document frequencies."""

_TOKEN = re.compile(r"\w+|[^\w\s]|\n")
MAX_CHARACTERS = 20_000
"""Characters of a text that are read: far beyond any encoder's window."""


@dataclass(frozen=True)
class Metric:
    """The map from an encoder's vectors and the texts to the index's vectors."""

    matrix: Float32[np.ndarray, "d d"]
    """M."""
    idf: Float32[np.ndarray, "buckets"]
    """Inverse document frequencies of hashed words and pairs."""
    share: float
    """s, between 0 and 1."""
    words: int
    """Dimensions of the hashed words, a power of two."""

    def __call__(
        self, rows: Float32[np.ndarray, "n d"], texts: Sequence[str]
    ) -> Float32[np.ndarray, "n v"]:
        """v of each text, `rows` being the encoder's vectors of the same texts.

        Raises RamoleError where the encoder has another dimension.
        """
        if rows.shape[1] != len(self.matrix):
            raise RamoleError(
                f"This retriever is tuned for vectors of dimension {len(self.matrix)}, and the "
                f"encoder's have {rows.shape[1]}; train the retriever anew."
            )
        dense = rows @ self.matrix
        dense /= np.maximum(np.linalg.norm(dense, axis=1, keepdims=True), 1e-12)
        worded = word_vectors(texts, self.idf, d=self.words)
        joined = np.hstack([np.sqrt(1 - self.share) * dense, np.sqrt(self.share) * worded])
        # a text without words has the encoder's part alone
        return (joined / np.linalg.norm(joined, axis=1, keepdims=True)).astype(np.float32)

    def save(self, folder: Path) -> None:
        """Write it, in float16."""
        from safetensors.numpy import save_file

        tensors = {"matrix": self.matrix, "idf": self.idf}
        save_file({name: x.astype(np.float16) for name, x in tensors.items()}, folder / METRIC)

    @classmethod
    def load(cls, folder: Path, *, share: float, words: int) -> "Metric":
        """Read what `save` wrote. Raises RamoleError where it is broken."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            held = load_file(folder / METRIC)
            matrix, idf = (held[name].astype(np.float32) for name in ("matrix", "idf"))
        except (OSError, KeyError, SafetensorError) as error:
            raise RamoleError(
                f"{folder / METRIC} cannot be read ({error!r}); train the retriever anew, or "
                f"delete {folder}."
            ) from None
        square = matrix.ndim == 2 and matrix.shape[0] == matrix.shape[1]
        if not square or idf.shape != (BUCKETS,) or not 0 <= share < 1 or words & (words - 1):
            raise RamoleError(
                f"{folder / METRIC} holds {matrix.shape} and {idf.shape} for {words} words at "
                f"{share}; expected a square and ({BUCKETS},). Train the retriever anew."
            )
        return cls(matrix, idf, share, words)


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
    """The hashes of a text's words and pairs, with their counts."""
    tokens = _TOKEN.findall(text[:MAX_CHARACTERS].lower())
    bag = Counter(tokens)
    bag.update(f"{a} {b}" for a, b in zip(tokens, tokens[1:], strict=False))
    hashes = [zlib.crc32(word.encode("utf-8", "replace")) for word in bag]
    return np.array(hashes, np.int64), np.array(list(bag.values()), np.int64)
