"""The index of the adapters' vectors, in Chroma: upsert, delete, query, read.

Chroma's search is approximate, and slow where every neighbour is asked for. An embedded Chroma is
copied into a `Mirror`, which searches exactly; the copy is dropped whenever anybody else wrote to
the folder, so what Chroma holds is what is found. A server cannot tell that another client wrote:
there every neighbour is asked for, those that the graph lost are read, and the stored vectors
decide.
"""

import threading
from collections.abc import Collection as Keys, Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32

from ramole_core.errors import RamoleError
from ramole_core.retrieval.mirror import Mirror, plain_name, rank
from ramole_core.retrieval.soundness import SUM, weighted_sum
from ramole_core.retrieval.store import ChromaServer, EmbeddedChroma, IndexBroken, Store

if TYPE_CHECKING:
    from chromadb import Collection

_CHUNK = 1000  # rows in one call to Chroma; a server refuses bodies beyond some tens of MB
_SLACK = 1e-4  # how far Chroma's float32 distances are trusted


@dataclass(frozen=True)
class Entry:
    """What the index holds of one adapter."""

    owner: str | None
    """None: the sample pool."""
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
        self._mirror: tuple[object, Mirror] | None = None
        """The copy, and the opened collection that it is a copy of."""

    def upsert(self, entries: dict[str, Entry]) -> None:
        """Add the entries, or put them in the place of those with the same keys."""
        keys = list(entries)
        with self._speaking():
            for start in range(0, len(keys), _CHUNK):
                part = keys[start : start + _CHUNK]
                collection = self._store.collection()
                collection.upsert(
                    ids=part,
                    embeddings=np.stack([entries[key].vector for key in part]),
                    metadatas=[_metadata(key, entries[key]) for key in part],
                )
                self._store.spoke()
                if mirror := self._mirror_of(collection):
                    mirror.put({key: entries[key].vector for key in part})

    def delete(self, keys: Sequence[str]) -> None:
        """Take the keys out; one that is not there is passed over."""
        with self._speaking():
            for start in range(0, len(keys), _CHUNK):
                part = list(keys[start : start + _CHUNK])
                collection = self._store.collection()
                collection.delete(ids=part)
                self._store.spoke()
                if mirror := self._mirror_of(collection):
                    mirror.drop(part)

    def read(self, keys: Sequence[str] | None = None) -> dict[str, Entry]:
        """The entries of `keys` (None: all of them); a key that is not there is left out."""
        with self._speaking():
            collection = self._store.collection()
            wanted = collection.get(include=[])["ids"] if keys is None else list(keys)
            found: dict[str, Entry] = {}
            for start in range(0, len(wanted), _CHUNK):
                part = collection.get(
                    ids=wanted[start : start + _CHUNK], include=["embeddings", "metadatas"]
                )
                vectors = np.asarray(part["embeddings"], np.float32)
                metadatas = part["metadatas"] or []
                for key, vector, stored in zip(part["ids"], vectors, metadatas, strict=True):
                    found[key] = _entry(vector, dict(stored or {}))
            self._store.spoke()
            if keys is None and self._store.watched:
                vectors = {key: entry.vector for key, entry in found.items()}
                self._mirror = (collection, Mirror(vectors))
        return found

    def query(
        self, vector: Float32[np.ndarray, "d"], *, k: int, among: Keys[str]
    ) -> list[tuple[str, float]]:
        """The k keys of `among` with the largest cosine to `vector`, best first, ties by name.

        Equal to brute force over the vectors that Chroma holds.
        """
        with self._speaking():
            collection = self._store.collection()
            if not self._store.watched:
                return self._query_all(collection, vector, k=k, among=among)
            mirror = self._mirror_of(collection)
            if mirror is None:
                self.read()
                mirror = self._mirror_of(self._store.collection())
            return mirror.query(vector, k=k, among=among) if mirror else []

    def _query_all(
        self,
        collection: "Collection",
        vector: Float32[np.ndarray, "d"],
        *,
        k: int,
        among: Container[str],
    ) -> list[tuple[str, float]]:
        """`query` without a copy: every neighbour from Chroma, the best by their own vectors."""
        count = collection.count()
        if not count:
            return []
        answer = collection.query(
            query_embeddings=vector[None], n_results=count, include=["distances"]
        )
        keys, distances = answer["ids"][0], (answer["distances"] or [[]])[0]
        near = {
            key: distance for key, distance in zip(keys, distances, strict=True) if key in among
        }
        best = sorted(near.values())[:k]
        close = [key for key in near if near[key] <= best[-1] + _SLACK]
        if len(keys) < count:
            lost = set(collection.get(include=[])["ids"]) - set(keys)
            close += [key for key in lost if key in among]
        vectors = {key: entry.vector for key, entry in self.read(close).items()}
        return rank(vector, vectors)[:k]

    def _mirror_of(self, collection: "Collection") -> Mirror | None:
        """The copy of this opened collection; None when there is none."""
        if self._mirror is not None and self._mirror[0] is collection:
            return self._mirror[1]
        return None

    def wipe(self) -> None:
        """Delete the whole index."""
        with self._speaking():
            self._store.wipe()

    def close(self) -> None:
        """Give files and sockets back; a later call opens them again."""
        with self._lock:
            self._store.close(sound=True)
            self._mirror = None

    @contextmanager
    def _speaking(self) -> Iterator[None]:
        """Hold the lock, and turn what Chroma raises into one sentence."""
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

        if isinstance(self._store, ChromaServer) and not isinstance(error, ChromaError):
            self._store.close()
            return self._store.unreachable(error)
        self._store.close()
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        return IndexBroken(
            f"The index at {self._store.where} is broken ({reason}); delete it, it is rebuilt from "
            "the pool."
        )


def _metadata(key: str, entry: Entry) -> dict[str, str | float]:
    return {
        "name": plain_name(key),
        "owner": entry.owner or "",
        "texts": entry.texts,
        "encoder": entry.encoder,
        SUM: weighted_sum(entry.vector),
    }


def _entry(vector: Float32[np.ndarray, "d"], stored: dict[str, object]) -> Entry:
    return Entry(
        owner=str(stored.get("owner") or "") or None,
        texts=str(stored.get("texts", "")),
        encoder=str(stored.get("encoder", "")),
        vector=vector,
    )
