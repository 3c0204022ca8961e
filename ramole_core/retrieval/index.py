"""The index of the adapters' vectors, in Chroma: upsert, delete, query, read.

Chroma's search is approximate, and slow where every neighbour is requested. An embedded Chroma is
copied into `Vectors`, which search exactly; the copy is dropped when another client wrote to the
folder, so what Chroma holds is what is found. A server hides other clients' writes: there every
neighbour is requested, those that the graph lost are read, and stored vectors decide.
"""

import threading
from collections.abc import Collection as Keys, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32

from ramole_core.errors import RamoleError, first_line
from ramole_core.retrieval.collection import IndexBroken
from ramole_core.retrieval.examination import ROWS, SUM, weighted_sum
from ramole_core.retrieval.store import ChromaServer, EmbeddedChroma, Store
from ramole_core.retrieval.vectors import MAX_ERROR, Vectors, rank

if TYPE_CHECKING:
    from chromadb import Collection


@dataclass(frozen=True)
class IndexEntry:
    """One adapter's entry in the index."""

    texts: str
    """Checksum of the texts that the vector was made from."""
    encoder: str
    """Checksum of the encoder that made it."""
    vector: Float32[np.ndarray, "d"]


class AdapterIndex:
    """One vector an adapter, by key (`owner/name`). Thread-safe; opened on first use."""

    def __init__(self, *, data_dir: Path, url: str | None = None):
        """Embedded under `data_dir`/chroma, or the Chroma server at `url`."""
        self._store: Store = (
            ChromaServer(url) if url else EmbeddedChroma(Path(data_dir).absolute() / "chroma")
        )
        self._lock = threading.RLock()
        self._copy: tuple[Collection | None, Vectors] = (None, Vectors())
        """The vectors in memory, and the opened collection that they are a copy of."""

    def upsert(self, entries: dict[str, IndexEntry]) -> None:
        """Add the entries, or replace those with the same keys."""
        with self._opened() as collection:
            for part in _parts(list(entries)):
                vectors = {key: entries[key].vector for key in part}
                collection.upsert(
                    ids=part,
                    embeddings=np.stack(list(vectors.values())),
                    metadatas=[_metadata(entries[key]) for key in part],
                )
                if self._copy[0] is collection:
                    self._copy[1].put(vectors)

    def delete(self, keys: Sequence[str]) -> None:
        """Delete the keys; unknown ones are ignored."""
        with self._opened() as collection:
            for part in _parts(keys):
                collection.delete(ids=part)
                if self._copy[0] is collection:
                    self._copy[1].drop(part)

    def read(self, keys: Sequence[str] | None = None) -> dict[str, IndexEntry]:
        """The entries of `keys` (None: all of them); a key that is not there is left out."""
        with self._opened() as collection:
            return self._read(collection, keys)

    def query(
        self, vector: Float32[np.ndarray, "d"], *, k: int, among: Keys[str]
    ) -> list[tuple[str, float]]:
        """The k keys of `among` with the largest cosine to `vector`, best first, ties by name.

        Equal to brute force over the vectors that Chroma holds.
        """
        with self._opened() as collection:
            if not self._store.watched:
                near = self._read(collection, _near(collection, vector, k=k, among=among))
                return rank(vector, {key: entry.vector for key, entry in near.items()})[:k]
            if self._copy[0] is not collection:
                self._read(collection, None)
            return self._copy[1].query(vector, k=k, among=among)

    def wipe(self) -> None:
        """Delete the whole index."""
        with self._locked():
            self._store.wipe()

    def close(self) -> None:
        """Close files and sockets; a later call opens them again."""
        with self._lock:
            self._store.close(sound=True)
            self._copy = (None, Vectors())

    def _read(self, collection: "Collection", keys: Sequence[str] | None) -> dict[str, IndexEntry]:
        found: dict[str, IndexEntry] = {}
        for part in _parts(collection.get(include=[])["ids"] if keys is None else keys):
            told = collection.get(ids=part, include=["embeddings", "metadatas"])
            vectors, metadatas = np.asarray(told["embeddings"], np.float32), told["metadatas"] or []
            for key, vector, stored in zip(told["ids"], vectors, metadatas, strict=True):
                said = {name: str((stored or {}).get(name, "")) for name in ("texts", "encoder")}
                found[key] = IndexEntry(**said, vector=vector)
        if keys is None and self._store.watched:
            self._copy = (collection, Vectors())
            self._copy[1].put({key: entry.vector for key, entry in found.items()})
        return found

    @contextmanager
    def _opened(self) -> "Iterator[Collection]":
        with self._locked(), self._store.opened() as collection:
            yield collection

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock, and translate Chroma's errors."""
        with self._lock:
            try:
                yield
            except RamoleError:
                raise
            except BaseException as error:
                # a panic in Chroma's Rust is a BaseException of a type that cannot be imported
                panic = type(error).__name__ == "PanicException"
                if not isinstance(error, Exception) and not panic:
                    raise
                raise self._sentence(error) from error

    def _sentence(self, error: BaseException) -> RamoleError:
        from chromadb.errors import ChromaError

        self._store.close()
        if isinstance(self._store, ChromaServer) and not isinstance(error, ChromaError):
            return self._store.unreachable(error)
        reason = first_line(error)
        return IndexBroken(
            f"The index at {self._store.where} is broken ({reason}); delete it, it is rebuilt from "
            "the pool."
        )


def _near(
    collection: "Collection", vector: Float32[np.ndarray, "d"], *, k: int, among: Keys[str]
) -> list[str]:
    """Keys of `among` that include the k nearest: all neighbours, and keys that the graph does not
    reach."""
    count = collection.count()
    if not count:
        return []
    told = collection.query(query_embeddings=vector[None], n_results=count, include=["distances"])
    keys, distances = told["ids"][0], (told["distances"] or [[]])[0]
    far = {key: distance for key, distance in zip(keys, distances, strict=True) if key in among}
    last = sorted(far.values())[:k][-1:]
    lost = set(collection.get(include=[])["ids"]) - set(keys) if len(keys) < count else set()
    near = [key for key in far if far[key] <= last[0] + MAX_ERROR]
    return near + [key for key in lost if key in among]


def _parts(keys: Sequence[str]) -> Iterator[list[str]]:
    for start in range(0, len(keys), ROWS):
        yield list(keys[start : start + ROWS])


def _metadata(entry: IndexEntry) -> dict[str, str | float]:
    return {"texts": entry.texts, "encoder": entry.encoder, SUM: weighted_sum(entry.vector)}
