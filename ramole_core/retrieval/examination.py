"""`python -m ramole_core.retrieval.examination FOLDER`: what a start does with an index, done where
it harms nobody. It ends with 0, or says what is broken and ends with 1, or dies of it."""

import sqlite3
import sys
from pathlib import Path

import numpy as np

from ramole_core.retrieval.graph_check import wrong_in_graph
from ramole_core.retrieval.soundness import SUM, is_as_written
from ramole_core.retrieval.store import DATABASE, EmbeddedChroma

PROBE = "a key that no adapter has"


def examine(folder: Path) -> None:
    """Raises what SQLite or Chroma say of the index in `folder`, which stays as it was."""
    database = sqlite3.connect(f"{(folder / DATABASE).absolute().as_uri()}?mode=ro", uri=True)
    try:
        (first, *_), *_ = database.execute("PRAGMA quick_check").fetchall()
    finally:
        database.close()
    if first != "ok":
        raise ValueError(f"SQLite says: {first}")
    for header in folder.glob("*/header.bin"):
        if wrong := wrong_in_graph(header.parent):
            raise ValueError(wrong)
    store = EmbeddedChroma(folder, examined=True)
    try:
        collection = store.collection()
        found = collection.get(include=["embeddings", "metadatas"])
        vectors = np.asarray(found["embeddings"], np.float32)
        said = [(stored or {}).get(SUM) for stored in found["metadatas"] or []]
        if not all(map(is_as_written, vectors, said)):
            raise ValueError("it holds other vectors than were written")
        if len(vectors):
            collection.query(query_embeddings=vectors[:1], n_results=min(10, len(vectors)))
            collection.upsert(ids=[PROBE], embeddings=vectors[:1])
            collection.get(ids=[PROBE], include=["embeddings"])
            collection.delete(ids=[PROBE])
    finally:
        store.close()


if __name__ == "__main__":
    try:
        examine(Path(sys.argv[1]))
    except BaseException as error:  # a panic in Chroma's Rust is no Exception
        lines = str(error).strip().splitlines() or [type(error).__name__]
        print(lines[0][:300])
        sys.exit(1)
