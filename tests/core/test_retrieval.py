"""The retriever: true to owners, to brute force and to the pool, a real one included."""

from functools import partial
from pathlib import Path
from unittest.mock import Mock

import chromadb
import numpy as np
import pytest
from pytest import approx

from ramole_core import RamoleError
from ramole_core.retrieval import AdapterIndex, Hit, Retriever
from ramole_core.retrieval.collection import IndexBroken
from ramole_core.retrieval.examination import SUM
from tests.support.adapter_files import open_pool
from tests.support.pool_fakes import SHAPES, write_adapter, write_sample
from tests.support.retrieval_fakes import D, FakeCard, FakeEncoder, FakePool
from tests.support.workers import at_once

CARDS = [
    FakeCard("sql", None, ("count the rows", "join two tables", "drop a column")),
    FakeCard("mood", None, ("is this review glad", "is this review sad")),
    FakeCard("rhyme", "zoe", ("a verse on rain",)),
    FakeCard("mood", "zoe", ("is this tweet glad", "is this tweet sad")),
    FakeCard("sum", "adam", tuple(f"add {i}" for i in range(23))),
]


@pytest.fixture
def pool():
    return FakePool({card.key: card for card in CARDS})


@pytest.fixture
def encoder():
    return FakeEncoder()


@pytest.fixture
def retriever(tmp_path, pool, encoder):
    opened = Retriever(pool=pool, encoder=encoder, index=AdapterIndex(data_dir=tmp_path))
    pool.listeners.append(opened)
    yield opened
    opened.close()


def reopen(retriever: Retriever, tmp_path: Path, encoder: FakeEncoder) -> Retriever:
    """The same folder after a restart."""
    retriever.close()
    pool = retriever._pool
    return Retriever(pool=pool, encoder=encoder, index=AdapterIndex(data_dir=tmp_path))


def collection(tmp_path: Path) -> chromadb.Collection:
    return chromadb.PersistentClient(str(tmp_path / "chroma")).list_collections()[0]


def assert_brute_force(found, pool, text, k, exclude, owner):
    """Compares with hits made from texts, sharing no code with the retriever."""
    embed = FakeEncoder().embed
    query = embed([text])[0].astype(np.float64)
    hits: list[tuple[str, float, str | None]] = []
    for card in pool.held.values():
        if card.owner in (None, owner) and card.name not in exclude:
            mean = embed(card.texts[:20]).astype(np.float64).mean(0)
            hits.append((card.name, float(mean @ query / np.linalg.norm(mean)), card.owner))
    expected = sorted(hits, key=lambda hit: -hit[1])[:k]
    assert [(hit.name, hit.owner) for hit in found] == [(name, who) for name, _, who in expected]
    assert [hit.score for hit in found] == approx([s for _, s, _ in expected], abs=1e-6)


def test_a_vector_is_the_unit_mean_of_at_most_20_texts(retriever, tmp_path):
    retriever.check()
    stored = collection(tmp_path).get(ids=["adam/sum"], include=["embeddings"])["embeddings"][0]
    rows = FakeEncoder().embed([f"add {i}" for i in range(20)])
    mean = rows.mean(0) / np.linalg.norm(rows.mean(0))
    assert np.abs(stored - mean).max() < 1e-6
    more = FakeEncoder().embed([f"add {i}" for i in range(23)]).mean(0)
    assert np.abs(stored - more / np.linalg.norm(more)).max() > 1e-3


@pytest.mark.parametrize("owner", [None, "zoe", "adam", "nobody"])
def test_equal_to_brute_force_with_owners_and_excludes(retriever, pool, owner):
    random = np.random.default_rng(4)
    seen = set()
    for step in range(15):
        visible = sorted({card.name for card in pool.cards(owner)})
        exclude = tuple(name for name in visible if random.random() < 0.3)
        if len(exclude) == len(visible):
            exclude = exclude[1:]
        text, k = f"prompt {step}", int(random.integers(1, 7))
        hits = retriever.retrieve(text, k=k, exclude=exclude, owner=owner)
        assert_brute_force(hits, pool, text, k, exclude, owner)
        seen |= {hit.owner for hit in hits}
    assert seen == {card.owner for card in pool.cards(owner)}


def test_an_alteration_in_chroma_changes_what_is_found(retriever, encoder, tmp_path):
    text = "join two tables"
    assert retriever.retrieve(text, k=1)[0].name == "sql"
    held = collection(tmp_path)
    held.update(ids=["pool/sql"], embeddings=-encoder.embed([text]))
    held.update(ids=["pool/mood"], embeddings=encoder.embed([text]))
    assert [hit.name for hit in retriever.retrieve(text, k=2)] == ["mood", "sql"]
    assert retriever.retrieve(text, k=2)[1].score == approx(-1)
    again = reopen(retriever, tmp_path, encoder)
    assert [hit.name for hit in again.retrieve(text, k=2)] == ["mood", "sql"]
    held.delete(ids=["pool/mood"])
    assert [hit.name for hit in again.retrieve(text, k=2)] == ["sql"]
    again.close()


def test_check_embeds_only_what_is_missing_in_one_call(retriever, pool, encoder, tmp_path):
    first = retriever.check()
    assert set(first.added) == set(pool.held) and first.kept == 0 and first.rebuilt is None
    assert len(encoder.calls) == 1
    encoder.calls.clear()
    second = retriever.check()
    assert (second.added, second.removed, second.kept) == ((), (), len(CARDS))
    assert encoder.calls == []
    retriever.close()
    held = collection(tmp_path)
    held.delete(ids=["zoe/rhyme"])
    held.add(ids=["pool/orphan"], embeddings=np.ones((1, D), np.float32))
    nothing = np.zeros((1, D), np.float32)
    held.update(ids=["pool/mood"], embeddings=nothing, metadatas=[{SUM: 0.0}])
    held.update(ids=["pool/orphan"], metadatas=[{"encoder": encoder.checksum}])
    pool.held["pool/sql"] = FakeCard("sql", None, ("other", "texts"))
    third = reopen(retriever, tmp_path, encoder).check()
    assert set(third.added) == {"zoe/rhyme", "pool/sql", "pool/mood"}
    assert (third.removed, third.kept, third.rebuilt) == (("pool/orphan",), 2, None)
    texts = ["other", "texts", "is this review glad", "is this review sad", "a verse on rain"]
    assert [sorted(call) for call in encoder.calls] == [sorted(texts)]
    assert "2 vectors kept, 3 added, 1 removed" in str(third)


def test_another_encoder_makes_everything_anew(retriever, pool, tmp_path):
    retriever.check()
    wider = FakeEncoder(d=D + 3, checksum="second")
    again = reopen(retriever, tmp_path, wider)
    report = again.check()
    assert report.rebuilt == "it was made by another encoder." and report.kept == 0
    assert set(report.added) == set(pool.held)
    assert len(again.retrieve("count the rows", k=9, owner="zoe")) == 4
    again.close()


@pytest.mark.parametrize(
    ("damage", "when"),
    [
        ("garbage", "closed"),
        ("garbage", "open"),
        ("deleted", "closed"),
        ("deleted", "open"),
        ("no collection", "open"),
    ],
)
def test_a_broken_index_is_rebuilt(damage, when, retriever, encoder, tmp_path):
    text = "count the rows"
    before = retriever.retrieve(text, k=5, owner="zoe")
    if when == "closed":
        retriever.close()
    if damage == "no collection":
        chromadb.PersistentClient(str(tmp_path / "chroma")).delete_collection("adapters")
    for path in (tmp_path / "chroma").rglob("*"):
        if path.is_file() and damage != "no collection":
            path.write_bytes(b"garbage" * 999) if damage == "garbage" else path.unlink()
    again = reopen(retriever, tmp_path, encoder) if when == "closed" else retriever
    assert again.retrieve(text, k=5, owner="zoe") == before
    assert again.check().kept == len(CARDS)
    again.close()


def test_an_index_whose_rebuilding_failed_is_repaired_by_the_next_who_asks(retriever, monkeypatch):
    everything = {hit.name for hit in retriever.retrieve("one", 9)}
    index, written = retriever._index, []
    upsert = index.upsert

    def write_one(entries):
        if written:
            raise IndexBroken("the disk is full")
        written.append(upsert(entries))

    def broken(*args, **named):
        raise IndexBroken("it broke")

    monkeypatch.setattr("ramole_core.retrieval.kept_index._CHUNK", 1)
    monkeypatch.setattr(index, "query", broken)
    monkeypatch.setattr(index, "read", Mock(side_effect=[IndexBroken("it broke"), {}]))
    monkeypatch.setattr(index, "upsert", write_one)
    with pytest.raises(IndexBroken, match="full"):
        retriever.retrieve("one", 9)
    monkeypatch.undo()
    assert {hit.name for hit in retriever.retrieve("one", 9)} == everything


def test_neighbours_leave_the_adapter_itself_out(retriever, pool):
    twin = pool.put(FakeCard("twin", "zoe", pool.held["pool/mood"].texts))
    hits = retriever.neighbours(twin, k=9, owner="zoe")
    assert (hits[0].name, hits[0].owner, hits[0].score) == ("mood", None, approx(1))
    assert {(hit.name, hit.owner) for hit in hits} == {
        (card.name, card.owner) for card in pool.cards("zoe") if card != twin
    }
    assert [hit.name for hit in retriever.neighbours(twin, k=1, owner=None)] == ["mood"]


def test_similarities_keep_the_order_asked_for(retriever, pool):
    cards = [pool.held[key] for key in ("adam/sum", "pool/sql", "zoe/mood")]
    scores = retriever.similarities("a prompt", cards)
    apart = {
        (hit.name, hit.owner): hit.score
        for owner in ("adam", "zoe")
        for hit in retriever.retrieve("a prompt", k=9, owner=owner)
    }
    assert scores == approx([apart[card.name, card.owner] for card in cards])
    assert len(set(scores)) == 3
    assert retriever.similarities("a prompt", []) == []
    with pytest.raises(RamoleError, match="holds no adapter ghost"):
        retriever.similarities("a prompt", [FakeCard("ghost")])


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"text": " \n"}, "text to find adapters for is empty"),
        ({"k": 0}, "k=0; it is the number of adapters"),
        ({"exclude": ("moot",)}, r"exclude names 'moot'.*there are mood \(of 2\)"),
        ({"exclude": ("rhyme",)}, "exclude names 'rhyme'"),  # zoe's, and nobody asks as zoe
        ({"exclude": "sql"}, r"is a string; pass a list: \['sql'\]"),
        ({"exclude": ("sql", "mood")}, "exclude names all 2 adapters"),
    ],
)
def test_what_cannot_be_answered_gets_a_sentence(retriever, pool, asked, sentence):
    with pytest.raises(RamoleError, match=sentence):
        retriever.retrieve(**{"text": "x", **asked})
    pool.held.clear()
    with pytest.raises(RamoleError, match="pool is empty; add an adapter"):
        retriever.retrieve("x")
    assert retriever.check().kept == 0


def test_many_threads_get_what_one_gets(retriever, pool):
    texts = [f"prompt {i % 4}" for i in range(12)]
    together: dict[int, list[Hit]] = {}

    def ask(i: int) -> None:
        together[i] = retriever.retrieve(texts[i], k=3, owner="zoe")

    def change() -> None:
        for i in range(6):
            pool.take(pool.put(FakeCard(f"passing{i}", "adam", (f"p{i}",))))

    at_once(change, *[partial(ask, i) for i in range(len(texts))])
    for i, text in enumerate(texts):
        assert_brute_force(together[i], pool, text, 3, (), "zoe")


# Behind a real pool: what is added is found, by its owner, until it is removed


@pytest.fixture
def real(tmp_path, encoder):
    """A pool of two samples, and a retriever that follows it."""
    for seed, (name, example) in enumerate([("sql", "join two tables"), ("mood", "is it glad")]):
        write_sample(tmp_path / "samples", name, seed=seed, examples=[example])
    with open_pool(tmp_path, shapes=lambda: SHAPES) as pool:
        index = AdapterIndex(data_dir=tmp_path / "data")
        retriever = Retriever(pool=pool, encoder=encoder, index=index)
        pool.listeners.append(retriever)
        yield pool, retriever
        retriever.close()


def found(retriever: Retriever, text: str, owner: str | None = None) -> list[tuple]:
    return [(hit.name, hit.owner) for hit in retriever.retrieve(text, k=9, owner=owner)]


@pytest.mark.parametrize("used_before", [True, False])
def test_what_is_added_changed_and_removed_is_found_so(used_before, real, encoder, tmp_path):
    pool, retriever = real
    if used_before:
        assert sorted(found(retriever, "a glass of wine")) == [("mood", None), ("sql", None)]
    encoder.calls.clear()
    source = write_adapter(tmp_path / "wine", seed=7, examples=["a glass of wine"])
    card = pool.add(source, name="wine", owner="zoe")
    assert encoder.calls == [["a glass of wine"]] * used_before, "the new one alone"
    assert found(retriever, "a glass of wine", "zoe")[0] == ("wine", "zoe")
    for owner in (None, "adam"):
        assert ("wine", "zoe") not in found(retriever, "a glass of wine", owner)
    assert {hit.name for hit in retriever.neighbours(card, owner="zoe")} == {"mood", "sql"}
    pool.set_examples("wine", ["a pint of beer"], owner="zoe")
    best = retriever.retrieve("a pint of beer", k=1, owner="zoe")[0]
    assert (best.name, best.score) == ("wine", approx(1))
    pool.remove("wine", owner="zoe")
    assert sorted(found(retriever, "a pint of beer", "zoe")) == [("mood", None), ("sql", None)]
    assert retriever.check().removed == ()


def test_ones_own_hides_the_shared_one_of_its_name(real, tmp_path):
    pool, retriever = real
    source = write_adapter(tmp_path / "mine", seed=7, examples=["join two tables"])
    pool.add(source, name="sql", owner="zoe")
    assert found(retriever, "join two tables", "zoe") == [("sql", "zoe"), ("mood", None)]
    assert found(retriever, "join two tables") == [("sql", None), ("mood", None)]


def test_an_adapter_that_cannot_be_embedded_is_not_added(real, encoder, tmp_path):
    pool, retriever = real
    retriever.check()
    encoder.embed = Mock(side_effect=RamoleError("The encoder is away."))
    with pytest.raises(RamoleError, match="away"):
        pool.add(write_adapter(tmp_path / "wine", seed=7, examples=["wine"]), owner="zoe")
    assert [card.name for card in pool.cards("zoe")] == ["mood", "sql"]
