"""The index: equal to brute force over what Chroma holds, whoever wrote it there."""

import gc
import shutil
import sqlite3
from contextlib import closing

import chromadb
import numpy as np
import pytest

from ramole_core import RamoleError
from ramole_core.retrieval.collection import IndexBroken
from ramole_core.retrieval.examination import mark
from ramole_core.retrieval.index import AdapterIndex, IndexEntry
from ramole_core.retrieval.vectors import DIGITS
from tests.support.retrieval_fakes import D
from tests.support.workers import python

N = 137
STORED = 1200
"""So many that Chroma has a graph on disk."""


def entry(vector: np.ndarray, texts: str = "t") -> IndexEntry:
    return IndexEntry(texts=texts, encoder="e", vector=np.asarray(vector, np.float32))


def draw(n: int, d: int = D, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def brute(query: np.ndarray, rows: dict[str, np.ndarray], k: int) -> list[str]:
    """The oracle: plain numpy in float64, ties by name."""
    q = query.astype(np.float64)
    scored = [
        (-round(float(v.astype(np.float64) @ q / np.linalg.norm(v) / np.linalg.norm(q)), DIGITS), n)
        for n, v in rows.items()
    ]
    return [name for _, name in sorted(scored)[:k]]


@pytest.fixture
def index(tmp_path):
    opened = AdapterIndex(data_dir=tmp_path)
    yield opened
    opened.close()


def names(found: list[tuple[str, float]]) -> list[str]:
    return [key for key, _ in found]


def test_random_operations_equal_brute_force(index):
    random = np.random.default_rng(3)
    held: dict[str, np.ndarray] = {}
    rows = draw(N)
    for step in range(60):
        keys = [f"pool/a{i}" for i in random.choice(N, size=random.integers(1, 23), replace=False)]
        if random.random() < 0.3:
            index.delete(keys)
            for key in keys:
                held.pop(key, None)
        else:
            new = {key: rows[random.integers(N)] for key in keys}  # repeats: ties
            index.upsert({key: entry(vector) for key, vector in new.items()})
            held |= new
        query = draw(1, seed=100 + step)[0]
        among = {key for key in held if random.random() < 0.7}
        k = int(random.integers(1, 30))
        found = index.query(query, k=k, among=among)
        assert names(found) == brute(query, {key: held[key] for key in among}, k)
        for key, score in found:
            assert score == pytest.approx(float(held[key] @ query), abs=1e-6)


def test_exact_where_the_graph_alone_is_not(index, tmp_path):
    poor = {"space": "cosine", "ef_construction": 2, "ef_search": 2, "max_neighbors": 2}
    plain = chromadb.PersistentClient(str(tmp_path / "chroma")).create_collection(
        "adapters", embedding_function=None, configuration={"hnsw": poor}
    )
    mark(tmp_path / "chroma")  # else its vectors are written to a collection of our own
    rows = {f"pool/a{i}": v for i, v in enumerate(draw(700))}
    index.upsert({key: entry(v) for key, v in rows.items()})
    queries = draw(11, seed=9)
    answers = plain.query(query_embeddings=queries, n_results=3, include=[])["ids"]
    expected = [brute(query, rows, 3) for query in queries]
    assert [list(a) for a in answers] != expected  # else this test shows nothing
    reached = plain.query(query_embeddings=queries[:1], n_results=len(rows), include=[])["ids"]
    assert 0 < len(reached[0]) < len(rows)  # rows that no path leads to
    for query, best in zip(queries, expected, strict=True):
        assert names(index.query(query, k=3, among=rows)) == best


def test_a_filter_leaves_the_best_of_the_few(index):
    rows = {f"pool/a{i}": v for i, v in enumerate(draw(N))}
    index.upsert({key: entry(v) for key, v in rows.items()})
    query = draw(1, seed=5)[0]
    last = brute(query, rows, N)[-2:]
    assert names(index.query(query, k=5, among=set(last) | {"pool/unknown"})) == last
    assert index.query(query, k=5, among=set()) == []


def test_read_gives_back_what_was_written_also_after_closing(index):
    assert index.read() == {} and index.query(draw(1)[0], k=3, among={"pool/a"}) == []
    vectors = draw(3)
    index.upsert({"pool/a": entry(vectors[0]), "zoe/b": entry(vectors[1], texts="other")})
    found = index.read()
    assert set(found) == {"pool/a", "zoe/b"}
    assert (found["zoe/b"].texts, found["zoe/b"].encoder) == ("other", "e")
    assert np.array_equal(found["zoe/b"].vector, vectors[1])
    assert set(index.read(["zoe/b", "pool/unknown"])) == {"zoe/b"}
    index.delete(["pool/a", "pool/unknown"])
    index.close()
    assert set(index.read()) == {"zoe/b"}


def test_one_that_nobody_closes_lets_its_database_go(tmp_path):
    index = AdapterIndex(data_dir=tmp_path)
    index.upsert({"pool/a": entry(draw(1)[0])})
    watch = index._store._watch  # pyright: ignore[reportAttributeAccessIssue]
    assert watch is not None
    del index
    gc.collect()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        watch.execute("PRAGMA data_version")


CHANGE = (
    "import sys, chromadb; c = chromadb.PersistentClient(sys.argv[1]).list_collections()[0]; "
    "c.update(ids=['pool/a'], embeddings=[[-float(x) for x in sys.argv[2:]]])"
)


def test_changes_of_another_process_and_of_a_second_client_in_this_one_are_followed(
    index, tmp_path
):
    query, far, other = draw(3, seed=8)
    keys = ["pool/a", "pool/b"]
    index.upsert({"pool/a": entry(query), "pool/b": entry(other)})
    assert names(index.query(query, k=1, among=keys)) == ["pool/a"]
    done = python("-c", CHANGE, tmp_path / "chroma", *map(str, query))
    assert done.returncode == 0, done.stderr
    assert names(index.query(query, k=1, among=keys)) == ["pool/b"]
    second = chromadb.PersistentClient(str(tmp_path / "chroma")).list_collections()[0]
    second.update(ids=["pool/a"], embeddings=[7 * query])  # not unit: the cosine counts
    assert index.query(query, k=1, among=keys) == [("pool/a", pytest.approx(1.0))]
    second.delete(ids=["pool/a"])
    assert names(index.query(query, k=2, among=keys)) == ["pool/b"]
    index.upsert({"pool/a": entry(far)})
    assert set(names(index.query(query, k=2, among=keys))) == set(keys)


def test_ties_are_ordered_by_name_not_by_owner(index):
    vector = draw(1)[0]
    keys = ["zoe/a", "pool/c", "adam/b", "pool/b"]
    index.upsert({key: entry(vector) for key in keys})
    index.upsert({"pool/zero": entry(np.zeros(D))})
    found = index.query(vector, k=9, among=[*keys, "pool/zero"])
    assert names(found) == ["zoe/a", "adam/b", "pool/b", "pool/c", "pool/zero"]
    assert found[-1][1] == 0


def test_near_ties_at_the_last_place_are_ordered_exactly(index):
    query, away = draw(2)
    rows = {
        f"pool/a{i:03}": (query + np.float32(1e-3 + i * 2e-6) * away) * np.float32(2.0 ** (i % 7))
        for i in range(200)
    }
    index.upsert({key: entry(vector) for key, vector in rows.items()})
    assert names(index.query(query, k=7, among=rows)) == brute(query, rows, 7)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """An index with a graph on disk, closed."""
    root = tmp_path_factory.mktemp("stored")
    index = AdapterIndex(data_dir=root)
    index.upsert({f"pool/a{i}": entry(v) for i, v in enumerate(draw(STORED))})
    index.close()
    return root


def overwrite(pattern, data):
    return lambda folder: [part.write_bytes(data) for part in folder.glob(pattern)]


def truncate(folder):
    file = folder / "chroma.sqlite3"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def spoil_schema(folder):
    file = folder / "chroma.sqlite3"
    assert b"CREATE TABLE collections" in (data := file.read_bytes())
    file.write_bytes(data.replace(b"CREATE TABLE collections", b"CREATE T\xe0BLE collections"))


DAMAGE = {
    "schema": spoil_schema,
    "garbage": overwrite("chroma.sqlite3", b"not a database" * 500),
    "truncated": truncate,
    "no graph": lambda folder: [part.unlink() for part in folder.glob("*/*")],
    "broken graph": overwrite("*/*.bin", b"not a graph" * 50),
    "deleted": lambda folder: [
        p.unlink() for p in [*folder.glob("*/*"), *folder.glob("*.sqlite3")]
    ],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_reported_and_wiped(damage, stored, tmp_path):
    folder = tmp_path / "chroma"
    shutil.copytree(stored / "chroma", folder)
    index = AdapterIndex(data_dir=tmp_path)
    assert len(index.read()) == STORED
    if damage != "deleted":
        index.close()
    DAMAGE[damage](folder)
    with pytest.raises(IndexBroken, match="broken|deleted"):
        index.read()
    index.wipe()
    assert index.read() == {}
    vector = draw(1, d=D + 4)[0]
    index.upsert({"pool/new": entry(vector)})  # another dimension is welcome after a wipe
    assert names(index.query(vector, k=2, among=["pool/new"])) == ["pool/new"]
    index.close()
    with closing(sqlite3.connect(folder / "chroma.sqlite3")) as database:
        assert database.execute("PRAGMA quick_check").fetchone() == ("ok",)


def test_another_dimension_is_a_broken_index(index):
    index.upsert({"pool/a": entry(draw(1)[0])})
    with pytest.raises(IndexBroken, match="dimension"):
        index.upsert({"pool/b": entry(draw(1, d=D + 2)[0])})
    with pytest.raises(IndexBroken, match="dimension"):
        index.query(draw(1, d=D + 2)[0], k=1, among=["pool/a"])


def test_a_collection_of_another_space_is_a_broken_index(index, tmp_path):
    client = chromadb.PersistentClient(str(tmp_path / "chroma"))
    client.create_collection("adapters", embedding_function=None)  # l2 by default
    with pytest.raises(IndexBroken, match="'l2', not cosine"):
        index.read()


def test_a_folder_that_cannot_be_made_gets_a_sentence(tmp_path):
    (tmp_path / "chroma").write_text("a file where the folder should be")
    index = AdapterIndex(data_dir=tmp_path)
    with pytest.raises(RamoleError, match="The index at .* is broken"):
        index.read()
