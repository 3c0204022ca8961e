"""The store of adapters: whole or absent, checked when read, gone when nobody reads it any more."""

import threading

import pytest
import torch
from fsspec.implementations.memory import MemoryFileSystem

from ramole_core.errors import RamoleError
from ramole_core.pool import Limits, Pool
from ramole_core.serving.publishing import Publishing
from ramole_core.serving.store import AdapterStore, Mirror
from tests.support.adapter_files import SHAPES, write_adapter
from tests.support.workers import at_once


@pytest.fixture
def pool(tmp_path):
    (tmp_path / "samples").mkdir()
    with Pool(
        adapters_dir=tmp_path / "samples",
        data_dir=tmp_path / "data",
        shapes=lambda: SHAPES,
        limits=Limits(max_rank=32),
    ) as made:
        yield made


def add(pool, tmp_path, name, *, seed, owner=None):
    folder = write_adapter(tmp_path / f"{name}-{seed}", seed=seed)
    return pool.add(folder, name=name, owner=owner)


@pytest.fixture(params=["folder", "url"])
def store(request, tmp_path):
    if request.param == "folder":
        return AdapterStore(str(tmp_path / "store"))
    MemoryFileSystem.store.clear()
    return AdapterStore("memory://bucket/store")


def publish(pool, store, tmp_path, name="one", *, seed=1, owner=None):
    """An adapter that is in the pool and in the store."""
    card = add(pool, tmp_path, name, seed=seed, owner=owner)
    store.put(card.content, card.folder)
    return card


def mirror_of(store, tmp_path, **said):
    return Mirror(store, tmp_path / "mirror", shapes=SHAPES, **said)


def test_what_is_published_is_read_as_the_pool_reads_it(pool, store, tmp_path):
    one, other = (add(pool, tmp_path, name, seed=n) for n, name in enumerate(("one", "other")))
    assert not store.holds(one.content) and store.contents() == set()
    for card in (one, other):
        store.put(card.content, card.folder)
    assert store.contents() == {one.content, other.content}
    mirror = mirror_of(store, tmp_path)
    for card in (one, other):
        expected, found = pool.tensors(card).modules, mirror.loras(card.content)
        assert found.keys() == expected.keys() and found
        for path, (A, B) in expected.items():
            assert torch.equal(found[path].A, A) and torch.equal(found[path].B, B)
    assert mirror.reads == (0 if store.folder else 2)
    mirror.loras(one.content)
    assert mirror.reads == (0 if store.folder else 2), "it was read once"


def test_nothing_lies_there_but_weights_and_their_configuration(pool, tmp_path):
    store = AdapterStore(str(tmp_path / "store"))
    publish(pool, store, tmp_path, "secret_name", owner="somebody")
    files = [file for file in (tmp_path / "store").rglob("*") if file.is_file()]
    assert {file.name for file in files} == {"adapter_config.json", "adapter_model.safetensors"}
    assert not any(b"secret_name" in f.read_bytes() or b"somebody" in f.read_bytes() for f in files)


def test_a_damaged_file_is_told_and_a_damaged_copy_is_read_again(pool, store, tmp_path):
    card = publish(pool, store, tmp_path)
    mirror = mirror_of(store, tmp_path)
    mirror.loras(card.content)
    if not store.folder:
        copy = tmp_path / "mirror" / card.content / "adapter_model.safetensors"
        copy.write_bytes(copy.read_bytes()[:-1] + b"x")
        mirror.loras(card.content)
        assert mirror.reads == 2
    place = f"{store.place(card.content)}/adapter_config.json"
    config = store._fs.cat_file(place).replace(b'"lora_alpha": ', b'"lora_alpha": 1')
    store._fs.pipe_file(place, config)
    with pytest.raises(RamoleError, match="not what was published"):
        mirror_of(store, tmp_path / "other").loras(card.content)


def test_a_write_that_ends_half_way_leaves_nothing_that_counts(pool, tmp_path, monkeypatch):
    card = add(pool, tmp_path, "one", seed=1)
    store = AdapterStore(str(tmp_path / "store"))
    write = store._fs.put_file

    def fail(source, target):
        write(source, target)
        if "adapter_model" in target:
            raise OSError("the disk is full")

    monkeypatch.setattr(store._fs, "put_file", fail)
    with pytest.raises(OSError, match="full"):
        store.put(card.content, card.folder)
    monkeypatch.undo()
    assert not store.holds(card.content) and store.contents() == set()
    assert not list((tmp_path / "store").rglob("*.part"))
    with pytest.raises(RamoleError, match="removed while"):
        mirror_of(store, tmp_path).loras(card.content)
    store.put(card.content, card.folder)
    assert mirror_of(store, tmp_path).loras(card.content)


def test_a_mirror_keeps_those_that_were_used_last(pool, tmp_path):
    MemoryFileSystem.store.clear()
    store = AdapterStore("memory://bucket/store")
    cards = [publish(pool, store, tmp_path, f"a{n}", seed=n) for n in range(3)]
    mirror = mirror_of(store, tmp_path, most_bytes=cards[0].bytes * 5 // 2)
    for card in cards:
        mirror.loras(card.content)
    assert {f.name for f in (tmp_path / "mirror").iterdir()} == {c.content for c in cards[1:]}
    mirror.forget([cards[1].content])
    assert {f.name for f in (tmp_path / "mirror").iterdir()} == {cards[2].content}


def test_two_that_read_at_once_have_one_whole_copy(pool, tmp_path, monkeypatch):
    MemoryFileSystem.store.clear()
    one, get = threading.Lock(), MemoryFileSystem.get_file

    def get_alone(*said, **more):  # its files have one place of reading for all threads
        with one:
            return get(*said, **more)

    monkeypatch.setattr(MemoryFileSystem, "get_file", get_alone)
    store = AdapterStore("memory://bucket/store")
    card = publish(pool, store, tmp_path)
    mirrors = [mirror_of(store, tmp_path) for _ in range(4)]
    found = []
    at_once(*[lambda m=m: found.append(m.loras(card.content)) for m in mirrors])
    assert len(found) == 4
    assert [f.name for f in (tmp_path / "mirror").iterdir()] == [card.content]


def publishing(pool, store, gone=None):
    made = Publishing(pool, store, gone=(gone if gone is not None else []).extend)
    made.begin()
    pool.listeners.append(made)
    return made


def test_the_page_publishes_all_that_it_has_and_all_that_comes(pool, store, tmp_path):
    old = add(pool, tmp_path, "old", seed=1)
    publishing(pool, store)
    new = add(pool, tmp_path, "new", seed=2, owner="me")
    assert store.contents() == {old.content, new.content}
    pool.set_examples("old", ["What is new?"])
    assert store.contents() == {old.content, new.content}


def test_removed_it_goes_when_no_request_names_it(pool, store, tmp_path):
    gone: list[str] = []
    made = publishing(pool, store, gone)
    one, other = (add(pool, tmp_path, name, seed=n) for n, name in enumerate(("one", "other")))
    with made.held([one.content]):
        pool.remove("one")
        assert store.holds(one.content)
        pool.remove("other")
        assert gone == [other.content] and not store.holds(other.content)
        assert mirror_of(store, tmp_path).loras(one.content), "who runs reads it still"
    assert gone == [other.content, one.content]
    assert store.contents() == set()


def test_the_same_content_of_two_owners_stays_while_one_has_it(pool, store, tmp_path):
    publishing(pool, store)
    mine = add(pool, tmp_path, "one", seed=1, owner="me")
    yours = pool.add(tmp_path / "one-1", name="one", owner="you")
    assert mine.content == yours.content
    pool.remove("one", "me")
    assert store.holds(mine.content)
    pool.remove("one", "you")
    assert not store.holds(mine.content)


def test_what_comes_back_while_it_is_read_is_published_again(pool, store, tmp_path):
    made = publishing(pool, store)
    card = add(pool, tmp_path, "one", seed=1)
    with made.held([card.content]):
        aside = pool.set_aside("one")
        pool.bring_back(aside)
    assert store.holds(card.content)
    aside = pool.set_aside("one")
    assert not store.holds(card.content)
    pool.bring_back(aside)
    assert mirror_of(store, tmp_path).loras(card.content)


def test_what_a_page_that_died_left_goes_with_the_next_one(pool, store, tmp_path):
    made = publishing(pool, store)
    held, forgotten = (add(pool, tmp_path, f"a{n}", seed=n) for n in range(2))
    kept = add(pool, tmp_path, "kept", seed=7)
    with made.held([held.content]):
        pool.remove("a0")
        pool.listeners.remove(made)
        pool.remove("a1")  # a page that dies before it has told the store
        gone: list[str] = []
        publishing(pool, store, gone)  # the next one: nobody asks it for anything
    assert sorted(gone) == sorted([held.content, forgotten.content])
    assert store.contents() == {kept.content}


def test_an_adapter_is_there_before_it_is_asked_for(pool, store, tmp_path):
    """Between the card and its listeners a request may come."""
    made = publishing(pool, store)
    pool.listeners.remove(made)
    card = add(pool, tmp_path, "one", seed=1)
    assert not store.holds(card.content)
    with made.held([card.content]):
        assert store.holds(card.content)
    assert store.holds(card.content)


def test_a_store_that_is_none_is_one_sentence():
    with pytest.raises(RamoleError, match="RAMOLE_STORE_URL=nothing://here"):
        AdapterStore("nothing://here").contents()
