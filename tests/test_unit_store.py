"""Packed adapters on disk: written once, found again, gone with their adapter and not before."""

import pytest
import torch

from ramole_core.composition import Lora
from ramole_core.engine.store import UnitStore
from ramole_core.layers import find_layout
from tests.test_layers import LLAMA, linears, make_model

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


def test_another_base_has_other_usual_responses(world, tmp_path):
    open_store(world, tmp_path).get(WEIGHTS, lambda: world[1])
    store = open_store(world, tmp_path, base="int4")
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


def test_a_file_that_is_cut_short_is_packed_again(world, tmp_path):
    open_store(world, tmp_path).get(WEIGHTS, lambda: world[1])
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:100])
    store = open_store(world, tmp_path)
    assert store.get(WEIGHTS, lambda: world[1]).rank == 3 and store.packs == 1


def test_the_host_cache_keeps_to_its_bytes(world, tmp_path):
    size = open_store(world, None).get(WEIGHTS, lambda: world[1]).nbytes
    store = open_store(world, tmp_path, limit=2 * size)
    for number in range(5):
        store.get(f"{number}-0", lambda: world[1])
    assert store.nbytes == 2 * size
    store.get("4-0", never)
    store.get("0-0", never)  # from its file
    assert store.reads == 6  # five after packing
