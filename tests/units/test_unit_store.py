"""Packed adapters on disk: written once, found again, gone with their adapter and not before."""

import threading
import time

import pytest
import torch
from safetensors import SafetensorError

from ramole_core.composition import Lora
from ramole_core.engine import store as store_module
from ramole_core.engine.store import UnitStore
from ramole_core.layers import find_layout
from tests.laws.test_layers import LLAMA, linears, make_model
from tests.support.workers import at_once

WEIGHTS, OTHERS = "1f" * 8 + "-" + "2a" * 4, "1f" * 8 + "-" + "3b" * 4
"""Checksums as the pool gives them: of the tensors, and of what scales them."""


@pytest.fixture(scope="module")
def world():
    model = make_model(LLAMA)
    sizes = linears(model)
    torch.manual_seed(0)
    loras = {path: Lora(A=torch.randn(3, i), B=torch.randn(o, 3)) for path, (i, o) in sizes.items()}
    return find_layout(model, sizes), loras


def open_store(world, folder, limit=2**30, base="nf4"):
    return UnitStore(world[0], dtype=torch.float32, limit=limit, folder=folder, base=base)


def never():
    raise AssertionError("packed again")


def test_an_adapter_is_packed_once_and_read_by_the_next_process(world, tmp_path):
    first = open_store(world, tmp_path).get(WEIGHTS, lambda: world[1])
    store = open_store(world, tmp_path)
    again = store.get(WEIGHTS, never)
    assert all(torch.equal(a, b) for a, b in zip(first.A, again.A, strict=True))
    assert (store.packs, store.reads) == (0, 1)


@pytest.mark.parametrize(("base", "left"), [("int4", None), ("nf4", 100)])
def test_of_another_base_or_cut_short_a_file_is_packed_again(world, tmp_path, base, left):
    """Another base has other usual responses."""
    open_store(world, tmp_path).get(WEIGHTS, lambda: world[1])
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:left])
    store = open_store(world, tmp_path, base=base)
    assert store.get(WEIGHTS, lambda: world[1]).rank == 3 and store.packs == 1


def test_only_the_files_of_adapters_that_are_gone_are_deleted(world, tmp_path):
    store = open_store(world, tmp_path)
    for checksum in (WEIGHTS, OTHERS):
        store.get(checksum, lambda: world[1])
    older = tmp_path / f"{WEIGHTS}-0123456789ab.safetensors"
    older.write_bytes(b"of a format of before")
    store.keep_only([WEIGHTS])
    assert not older.exists()
    assert [file.name.rpartition("-")[0] for file in tmp_path.iterdir()] == [WEIGHTS]
    open_store(world, tmp_path).get(WEIGHTS, never)
    with pytest.raises(AssertionError, match="packed again"):
        open_store(world, tmp_path).get(OTHERS, never)
    older.write_bytes(b"of a format of before")
    store.drop([OTHERS])
    assert len(list(tmp_path.iterdir())) == 2
    store.drop([WEIGHTS])
    assert not list(tmp_path.iterdir()) and not store.nbytes


def test_a_removal_does_not_disturb_who_packs_another(world, tmp_path):
    store, over = open_store(world, tmp_path), threading.Event()

    def remove():
        while not over.is_set():
            store.keep_only(kept)

    kept = [f"{n:016x}-{n:08x}" for n in range(40)]

    def pack():
        try:
            for checksum in kept:
                store.get(checksum, lambda: world[1])
        finally:
            over.set()

    at_once(remove, pack)
    assert store.packs == 40 == len(list(tmp_path.iterdir()))


def test_two_threads_pack_an_adapter_once(world, tmp_path):
    store, both = open_store(world, tmp_path), threading.Barrier(2)

    def load():
        time.sleep(0.1)
        return world[1]

    def get():
        both.wait()
        store.get(WEIGHTS, load)

    at_once(*[get for _ in range(2)])
    assert store.packs == 1


@pytest.mark.parametrize("error", [OSError, SafetensorError])
def test_a_full_disk_costs_the_file_and_no_request(world, tmp_path, monkeypatch, error):
    def full(tensors, file):
        file.write_bytes(b"as far as it went")
        raise error("No space left on device")

    monkeypatch.setattr(store_module, "save_file", full)
    store = open_store(world, tmp_path)
    assert store.get(WEIGHTS, lambda: world[1]).rank == 3
    store.pack(OTHERS, lambda: world[1])
    assert not list(tmp_path.iterdir())


def test_the_host_cache_keeps_to_its_bytes(world, tmp_path):
    size = open_store(world, None).get(WEIGHTS, lambda: world[1]).nbytes
    store = open_store(world, tmp_path, limit=2 * size)
    for number in range(5):
        store.get(f"{number}-0", lambda: world[1])
    assert store.nbytes == 2 * size
    store.get("4-0", never)
    store.get("0-0", never)  # from its file
    assert store.reads == 6  # five after packing
