"""The encoder: MiniLM from its package, without a network, quiet; and what cannot be loaded."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from torch.nn.modules.module import register_module_forward_pre_hook

from ramole_core.base.kernel_linear import KernelLinear
from ramole_core.errors import RamoleError
from ramole_core.kernels.threads import kernels_alone
from ramole_core.retrieval import INSTRUCTION, Encoder, gathered
from ramole_core.retrieval.encoder import unit
from ramole_core.retrieval.model_files import find_model
from ramole_core.retrieval.one_forward import can_read
from ramole_core.settings import REPOSITORY

MODEL = "model.safetensors"
TEXTS = ["Is this review glad?\nfine film", "Write SQL: how many singers?", "x " * 700, ""]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return Encoder(data_dir=tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def packaged() -> Path:
    return find_model("all-MiniLM-L6-v2", download_dir=Path("/nowhere"))


def test_unit_rows_in_float32(encoder: Encoder) -> None:
    rows = encoder.embed(TEXTS)
    assert rows.shape == (4, 384) and rows.dtype == np.float32
    assert np.abs(np.linalg.norm(rows, axis=1) - 1).max() < 1e-6
    assert encoder.embed([]).shape == (0, 384)


@pytest.mark.parametrize("tuned", [False, True])
def test_a_texts_bits_hang_on_nothing_else(encoder: Encoder, tmp_path: Path, tuned: bool) -> None:
    """Else two requests that come together would have other weights than alone."""
    if tuned:
        encoder = Encoder(data_dir=tmp_path, adapter=REPOSITORY / "adapters" / "_retriever")
    texts = [*TEXTS, *(f"Is it number {n}? " * n for n in range(1, 9))]
    together, before = encoder.embed(texts), torch.get_num_threads()
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        try:
            alone = np.concatenate([encoder.embed([text]) for text in reversed(texts)])
        finally:
            torch.set_num_threads(before)
        assert np.array_equal(alone[::-1], together)


def test_together_is_what_the_model_says_of_each(packaged: Path, tmp_path: Path) -> None:
    """To the bit; the model is still right for who calls it, and 600 tokens are two forwards."""
    asked = Encoder(str(packaged), data_dir=tmp_path)
    model = asked._load()
    assert asked._together is not None
    texts = [INSTRUCTION + text for text in (*TEXTS, "y " * 300, *TEXTS[::-1])]
    together = asked._rows(texts)
    asked._together = None
    assert all(np.array_equal(*pair) for pair in zip(together, asked._rows(texts), strict=True))
    padded = model.encode(texts)
    assert np.abs(padded - np.stack(together)).max() < 1e-5


def test_a_text_that_no_tokenizer_takes_stops_no_other(encoder: Encoder) -> None:
    """Half a character, in the same moment as a stranger's prompt."""
    with pytest.raises(TypeError):
        encoder.embed(["half \ud800"])
    asked = [gathered._Asked(text) for text in ("half \ud800", INSTRUCTION + TEXTS[0])]
    encoder._gathered._fill(asked)
    assert isinstance(asked[0].error, TypeError) and asked[1].error is None
    row = asked[1].row
    assert row is not None and np.array_equal(unit(row[None]), encoder.embed(TEXTS[:1]))


@pytest.mark.parametrize("what", ["intermediate_size", "hidden_size", "is_decoder"])
def test_an_encoder_whose_sizes_would_show_reads_each_by_itself(packaged: Path, what) -> None:
    model = Encoder(str(packaged), data_dir=packaged)._load()
    assert can_read(model)
    odd = True if what == "is_decoder" else 100
    setattr(model.transformers_model.config, what, odd)
    assert not can_read(model)


def test_a_prompt_of_the_encoders_own_comes_first(encoder: Encoder, packaged: Path) -> None:
    asked = Encoder(str(packaged), data_dir=packaged)
    model = asked._load()
    model.prompts["query"], model.default_prompt_name = "query: ", "query"
    wanted = model.encode([INSTRUCTION + text for text in TEXTS[:2]])
    rows = asked.embed(TEXTS[:2])
    assert np.abs(rows - wanted).max() < 1e-5
    assert np.abs(rows - encoder.embed(TEXTS[:2])).max() > 1e-3


def test_half_precision_is_widened_on_a_cpu(packaged: Path, encoder: Encoder, tmp_path) -> None:
    folder = tmp_path / "half"
    shutil.copytree(packaged, folder)
    weights = {name: x.astype(np.float16) for name, x in load_file(folder / MODEL).items()}
    save_file(weights, folder / MODEL, {"format": "pt"})
    config = json.loads((folder / "config.json").read_text()) | {"dtype": "float16"}
    (folder / "config.json").write_text(json.dumps(config))
    half = Encoder(str(folder), data_dir=tmp_path)
    assert np.abs(half.embed(TEXTS) - encoder.embed(TEXTS)).max() < 5e-3
    assert half._load().dtype == torch.float32 and half._apart is kernels_alone


def test_the_instruction_is_part_of_the_text(encoder: Encoder, packaged: Path) -> None:
    from transformers import AutoModel, AutoTokenizer  # the reference: MiniLM by hand

    tokenizer, model = AutoTokenizer.from_pretrained(packaged), AutoModel.from_pretrained(packaged)
    both = []
    for text in (INSTRUCTION + TEXTS[0], TEXTS[0]):
        hidden = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        mean = hidden.mean(0).detach().numpy()
        both.append(mean / np.linalg.norm(mean))
    row = encoder.embed(TEXTS[:1])[0]
    assert np.abs(row - both[0]).max() < 1e-5
    assert np.abs(row - both[1]).max() > 1e-2


def test_likeness_of_task_is_seen(encoder: Encoder) -> None:
    sql, mood, asked = encoder.embed(
        ["SQL for: how many singers are there?", "Is this review positive or negative? dull", "sql"]
    )
    assert asked @ sql > asked @ mood


def test_no_network_and_not_a_word(tmp_path: Path) -> None:
    code = (
        "import socket, sys\n"
        "def refuse(*a, **k): raise AssertionError('a network call')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "from pathlib import Path\n"
        "from ramole_core.retrieval import Encoder\n"
        "assert Encoder(data_dir=Path(sys.argv[1])).embed(['a', 'b']).shape == (2, 384)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "default", "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not list(tmp_path.iterdir())


def test_a_short_text_is_not_padded_to_a_long_one(encoder: Encoder) -> None:
    short = "Write a SQL query: how many singers from France are older than 40?"
    rows = _rows_multiplied(encoder, [short])
    assert rows and len(set(rows)) == 1 and 15 < rows[0] < 64
    assert set(_rows_multiplied(encoder, [short * 40])) == {256}, "the most that it reads"
    assert sum(_rows_multiplied(encoder, [short, short * 40])) == (256 + rows[0]) * len(rows)


def _rows_multiplied(encoder: Encoder, texts: list[str]) -> list[int]:
    """Tokens that each linear layer is given; the pooler has one, whatever is read."""
    rows = []

    def count(module: torch.nn.Module, given: tuple) -> None:
        if isinstance(module, KernelLinear):
            rows.append(given[0][..., 0].numel())

    hook = register_module_forward_pre_hook(count)
    try:
        encoder.embed(texts)
    finally:
        hook.remove()
    return [count for count in rows if count > 1]


def test_a_folder_and_its_checksum(encoder: Encoder, packaged: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(packaged, copy)
    same = Encoder(str(copy), data_dir=tmp_path)
    assert same.checksum == encoder.checksum
    assert np.array_equal(same.embed(TEXTS[:2]), encoder.embed(TEXTS[:2]))
    weights = load_file(copy / "model.safetensors")
    weights["embeddings.word_embeddings.weight"] *= 1.5
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    other = Encoder(str(copy), data_dir=tmp_path)
    assert other.checksum != encoder.checksum
    assert np.abs(other.embed(TEXTS[:2]) - encoder.embed(TEXTS[:2])).max() > 1e-3


def test_its_own_lora_changes_vectors_and_checksum(
    encoder: Encoder, packaged: Path, tmp_path: Path
) -> None:
    random = np.random.default_rng(0)
    part = "base_model.model.encoder.layer.2.attention.self.query.lora_"
    tensors = {"A.weight": (3, 384), "B.weight": (384, 3)}
    made = {part + k: random.normal(size=s).astype(np.float32) for k, s in tensors.items()}
    folder = tmp_path / "lora"
    folder.mkdir()
    save_file(made, folder / "adapter_model.safetensors")
    said = {"peft_type": "LORA", "r": 3, "lora_alpha": 6, "target_modules": ["query"]}
    said |= {"base_model_name_or_path": str(packaged), "task_type": "FEATURE_EXTRACTION"}
    (folder / "adapter_config.json").write_text(json.dumps(said))
    tuned = Encoder(data_dir=tmp_path, adapter=folder)
    assert tuned.checksum != encoder.checksum
    rows = tuned.embed(TEXTS[:2])
    assert rows.shape == (2, 384) and np.abs(rows - encoder.embed(TEXTS[:2])).max() > 1e-3


def test_a_folder_without_safetensors_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"a pickle")
    with pytest.raises(RamoleError, match="no .safetensors weights"):
        Encoder(str(tmp_path), data_dir=tmp_path).embed(["a"])


def test_a_folder_that_is_no_encoder_is_refused(tmp_path: Path) -> None:
    save_file({"a": np.zeros(2, np.float32)}, tmp_path / "model.safetensors")
    with pytest.raises(RamoleError, match="cannot be loaded .*set RAMOLE_ENCODER"):
        Encoder(str(tmp_path), data_dir=tmp_path).embed(["a"])


@pytest.mark.parametrize("source", ["no/such/folder", "nobody-here/nothing-there"])
def test_an_unknown_id_is_refused(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    encoder = Encoder(source, data_dir=tmp_path)
    with pytest.raises(RamoleError, match=f"encoder '{source}' cannot be loaded .*RAMOLE_ENCODER"):
        encoder.checksum  # noqa: B018
