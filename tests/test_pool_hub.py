"""Adapters from a Hub: a small server of our own behind HF_ENDPOINT, and the real client."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ramole_core.errors import AdapterRefused
from ramole_core.pool import Limits, Pool
from tests.adapter_files import CONFIG, SHAPES, WEIGHTS, tree_of, write_adapter

SHA = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """Just enough of the Hub's API: model info with sizes, and files with their headers."""

    repositories: dict[str, dict[str, bytes]] = {}
    asked: list[tuple[str, str | None]] = []

    def do_HEAD(self):
        self._answer(body=False)

    def do_GET(self):
        self._answer(body=True)

    def log_message(self, *args):
        pass

    def _answer(self, *, body: bool):
        type(self).asked.append((self.path, self.headers.get("authorization")))
        path = self.path.partition("?")[0]
        if path.startswith("/api/models/"):
            repo, _, revision = path.removeprefix("/api/models/").partition("/revision/")
            files = self.repositories.get(repo)
            if files is None or revision not in ("", "main", "v1"):
                return self._send(404, b'{"error": "Repository not found"}', body)
            siblings = [{"rfilename": n, "size": len(data)} for n, data in files.items()]
            info = {"id": repo, "modelId": repo, "sha": SHA, "siblings": siblings}
            return self._send(200, json.dumps(info).encode(), body)
        repo, _, name = path.removeprefix("/").partition(f"/resolve/{SHA}/")
        return self._send(200, self.repositories[repo][name], body)

    def _send(self, status: int, data: bytes, body: bool):
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", f'"{abs(hash(data))}"')
        self.send_header("X-Repo-Commit", SHA)
        self.end_headers()
        if body:
            self.wfile.write(data)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    Hub.repositories, Hub.asked = {}, []
    yield Hub
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def pool(tmp_path):
    (tmp_path / "samples").mkdir()
    with Pool(
        adapters_dir=tmp_path / "samples",
        data_dir=tmp_path / "data",
        shapes=lambda: SHAPES,
        limits=Limits(max_upload_mb=1),
    ) as pool:
        yield pool


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_only_the_allowed_files_of_one_commit_are_fetched(hub, pool, tmp_path):
    readme = b"---\nlicense: mit\n---\nWrites poems.\n"
    files = {"README.md": readme, "optimizer.pt": b"x", "evil.py": b"x", "big.bin": bytes(2**21)}
    hub.repositories["ada/poems"] = files_of(write_adapter(tmp_path / "a", files=files))
    before = tree_of(tmp_path / "data")
    card = pool.add("hf:ada/poems@v1", owner="bob")
    assert (card.name, card.licence) == ("poems", "mit")
    assert any(SHA in note for note in card.notes)
    fetched = {path.rpartition("/")[2] for path, _ in hub.asked if "/resolve/" in path}
    assert fetched == {WEIGHTS, CONFIG, "README.md"}
    assert not (card.folder / ".hub").exists()
    assert pool.tensors(card).modules
    pool.remove("poems", "bob")
    assert tree_of(tmp_path / "data") == before


def test_a_visitor_never_uses_the_operators_token(hub, pool, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_operator")
    hub.repositories["ada/poems"] = files_of(write_adapter(tmp_path / "a"))
    pool.add("hf:ada/poems", owner="bob")
    assert hub.asked and not any(token for _, token in hub.asked)
    hub.asked.clear()
    pool.add("hf:ada/poems")
    assert any(token == "Bearer hf_operator" for _, token in hub.asked)


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
def test_refused_from_the_hub_without_a_trace(hub, pool, tmp_path, repo, spoil, sentence):
    if spoil:
        hub.repositories["ada/poems"] = spoil(files_of(write_adapter(tmp_path / "a")))
    before = tree_of(tmp_path / "data")
    with pytest.raises(AdapterRefused, match=sentence):
        pool.add(f"hf:{repo}")
    assert tree_of(tmp_path / "data") == before
    downloads = [path for path, _ in hub.asked if "/resolve/" in path]
    assert bool(downloads) == (sentence == "DoRA")  # weighed before anything is fetched


def test_without_a_network_there_is_one_sentence(pool, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(AdapterRefused, match="check the name and the network"):
        pool.add("hf:ada/poems")
