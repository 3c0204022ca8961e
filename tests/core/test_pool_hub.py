"""Adapters from a Hub: a small server of our own behind HF_ENDPOINT, and the real client."""

import pytest

from ramole_core.errors import AdapterRefused
from ramole_core.pool import Limits
from tests.support.adapter_files import CONFIG, WEIGHTS, open_pool, tree_of, write_adapter
from tests.support.hub_server import Repository


@pytest.fixture
def pool(tmp_path):
    with open_pool(tmp_path, limits=Limits(max_upload_mb=1)) as pool:
        yield pool


def repository_of(folder, spoil=lambda files: files):
    return Repository(spoil({path.name: path.read_bytes() for path in folder.iterdir()}))


def downloads(hub_server):
    """Names of the files that were asked for."""
    paths = (path.rpartition(" ")[0] for path in hub_server.asked if "/resolve/" in path)
    return {path.rpartition("/")[2] for path in paths}


def test_only_the_allowed_files_of_one_commit_are_fetched(hub_server, pool, tmp_path):
    readme = b"---\nlicense: mit\n---\nWrites poems.\n"
    files = {"README.md": readme, "optimizer.pt": b"x", "evil.py": b"x", "big.bin": bytes(2**21)}
    hub_server.repositories["ada/poems"] = repository_of(write_adapter(tmp_path / "a", files=files))
    before = tree_of(tmp_path / "data")
    card = pool.add("hf:ada/poems@v1", owner="bob")
    assert (card.name, card.licence) == ("poems", "mit")
    assert any(hub_server.repositories["ada/poems"].sha in note for note in card.notes)
    assert downloads(hub_server) == {WEIGHTS, CONFIG, "README.md"}
    assert not (card.folder / ".hub").exists()
    assert pool.tensors(card).modules
    pool.remove("poems", "bob")
    assert tree_of(tmp_path / "data") == before


def test_a_visitor_never_uses_the_operators_token(hub_server, pool, tmp_path):
    hub_server.repositories["ada/poems"] = repository_of(write_adapter(tmp_path / "a"))
    pool.add("hf:ada/poems", owner="bob")
    assert hub_server.tokens == {None}
    pool.add("hf:ada/poems")
    assert "Bearer hf_operator" in hub_server.tokens


@pytest.mark.parametrize(
    ("repo", "spoil", "sentence"),
    [
        ("ada/nothing", None, "could not be fetched from the Hub"),
        ("ada/poems@v9", lambda files: files, "could not be fetched from the Hub"),
        ("ada/poems", lambda f: {**f, WEIGHTS: bytes(2**20 + 1)}, "larger than 1 MiB"),
        ("ada/poems", lambda f: {CONFIG: f[CONFIG], "adapter_model.bin": b"x"}, "can run code"),
        ("ada/poems", lambda f: {WEIGHTS: f[WEIGHTS]}, "no adapter_config.json"),
        ("ada/poems", lambda f: {**f, CONFIG: b'{"use_dora": true}'}, "DoRA"),
    ],
)
def test_refused_from_the_hub_without_a_trace(hub_server, pool, tmp_path, repo, spoil, sentence):
    if spoil:
        hub_server.repositories["ada/poems"] = repository_of(write_adapter(tmp_path / "a"), spoil)
    before = tree_of(tmp_path / "data")
    with pytest.raises(AdapterRefused, match=sentence):
        pool.add(f"hf:{repo}")
    assert tree_of(tmp_path / "data") == before
    assert bool(downloads(hub_server)) == (sentence == "DoRA")  # weighed before anything is fetched


def test_without_a_network_there_is_one_sentence(pool, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(AdapterRefused, match="check the name and the network"):
        pool.add("hf:ada/poems")
