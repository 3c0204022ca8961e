"""The encoder: MiniLM from its package, without a network, quiet; and what cannot be loaded."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from ramole_core import RamoleError
from ramole_core.kernels.weight import Input, Weight
from ramole_core.retrieval import INSTRUCTION, Encoder
from ramole_core.retrieval.any_encoder import AnyEncoder
from ramole_core.retrieval.bert import CONFIG, POOLING, PROMPTS, SENTENCE, Bert, can_read
from ramole_core.retrieval.encoder import unit
from ramole_core.retrieval.model_files import find_model
from ramole_core.settings import REPOSITORY
from tests.support.workers import python

MODEL = "model.safetensors"
TEXTS = ["Is this review glad?\nfine film", "Write SQL: how many singers?", "x " * 700, ""]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return Encoder(data_dir=tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def packaged():
    return find_model("all-MiniLM-L6-v2", download_dir=Path("/nowhere"))


def test_unit_rows_in_float32(encoder):
    rows = encoder.embed(TEXTS)
    assert rows.shape == (4, 384) and rows.dtype == np.float32
    assert np.abs(np.linalg.norm(rows, axis=1) - 1).max() < 1e-6
    assert encoder.embed([]).shape == (0, 384)


@pytest.mark.parametrize("tuned", [False, True])
def test_a_texts_bits_hang_on_nothing_else(encoder, tmp_path, tuned):
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


def test_together_is_what_sentence_transformers_says_of_each(packaged):
    """600 tokens are two forwards."""
    texts = [INSTRUCTION + text for text in (*TEXTS, "y " * 300, "  two\tspaces ", *TEXTS[::-1])]
    together, other = Bert(packaged, None), AnyEncoder(packaged, None)
    pairs = zip(together.read(texts), other.read(texts), strict=True)
    assert all(np.abs(ours - theirs).max() < 1e-6 for ours, theirs in pairs)
    assert together.spans(texts) == [[*map(tuple, each)] for each in other.spans(texts)]
    assert together.count_tokens(texts) == other.count_tokens(texts) > 1000


def test_a_text_that_no_tokenizer_takes_is_refused_and_no_other(encoder):
    with pytest.raises(TypeError):
        encoder.embed(["half \ud800"])
    assert encoder.embed(TEXTS[:1]).shape == (1, 384)


@pytest.mark.parametrize(
    ("file", "changed"),
    [
        (CONFIG, {"intermediate_size": 100}),
        (CONFIG, {"hidden_size": 100}),
        (CONFIG, {"is_decoder": True}),
        (CONFIG, {"model_type": "roberta"}),
        (CONFIG, {"hidden_act": "relu"}),
        (POOLING, {"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True}),
        (CONFIG, {"layer_norm_eps": None}),
        (CONFIG, {"max_position_embeddings": 100}),
        (CONFIG, {"num_hidden_layers": 7}),
        (POOLING, {"include_prompt": False}),
        (POOLING, {"pooling_mode": "cls"}),
        (SENTENCE, {"do_lower_case": True}),
        (SENTENCE, {"max_seq_length": None}),
        (SENTENCE, {"query_length": 9}),
        ("tokenizer_config.json", {"do_lower_case": False}),
    ],
)
def test_another_encoder_is_left_to_sentence_transformers(
    encoder, packaged, tmp_path, file, changed
):
    assert can_read(packaged)
    assert not can_read(changed_copy(packaged, tmp_path, file, changed))


def test_an_encoder_with_another_pooling_answers(packaged, tmp_path):
    first = {"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True}
    folder = changed_copy(packaged, tmp_path, POOLING, first)
    other = Encoder(str(folder), data_dir=tmp_path)
    rows = other.embed(TEXTS)
    assert isinstance(other._model, AnyEncoder) and rows.shape == (4, 384)
    alone = np.concatenate([other.embed([text]) for text in TEXTS])
    assert np.array_equal(rows, alone)


def changed_copy(encoder: Path, root: Path, name: str, changed: dict) -> Path:
    """A copy of the encoder's folder with other entries in one of its files."""
    folder = shutil.copytree(encoder, root / "changed")
    said = json.loads((folder / name).read_text("utf-8")) if (folder / name).is_file() else {}
    (folder / name).write_text(json.dumps(said | changed), "utf-8")
    return folder


def test_a_prompt_of_the_encoders_own_comes_first(encoder, packaged, tmp_path):
    asked = {"prompts": {"query": "query: "}, "default_prompt_name": "query"}
    folder = changed_copy(packaged, tmp_path, PROMPTS, asked)
    rows = Encoder(str(folder), data_dir=tmp_path).embed(TEXTS[:2])
    [wanted] = np.stack([AnyEncoder(folder, None).read([INSTRUCTION + t for t in TEXTS[:2]])])
    assert np.abs(rows - unit(wanted)).max() < 1e-5
    assert np.abs(rows - encoder.embed(TEXTS[:2])).max() > 1e-3


def test_half_precision_is_widened_on_a_cpu(packaged, encoder, tmp_path):
    folder = changed_copy(packaged, tmp_path, CONFIG, {"dtype": "float16"})
    weights = {name: x.astype(np.float16) for name, x in load_file(folder / MODEL).items()}
    save_file(weights, folder / MODEL, {"format": "pt"})
    half = Encoder(str(folder), data_dir=tmp_path)
    assert np.abs(half.embed(TEXTS) - encoder.embed(TEXTS)).max() < 5e-3
    other = AnyEncoder(folder, None)
    assert (
        np.abs(unit(np.stack(other.read(TEXTS))) - unit(np.stack(half._rows(TEXTS)))).max() < 1e-6
    )


def test_the_instruction_is_part_of_the_text(encoder, packaged):
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


def test_building_loads_nothing_heavy_and_embedding_needs_no_network_and_prints_nothing(tmp_path):
    code = (
        "import socket, sys\n"
        "def refuse(*a, **k): raise AssertionError('a network call')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "from pathlib import Path\n"
        "from ramole_core.retrieval import AdapterIndex, Encoder, Retriever\n"
        "data = Path(sys.argv[1])\n"
        "encoder, index = Encoder(data_dir=data), AdapterIndex(data_dir=data)\n"
        "Retriever(pool=None, encoder=encoder, index=index)\n"
        "AdapterIndex(data_dir=data, url='http://127.0.0.1:9')\n"
        "slow = {'transformers', 'sentence_transformers'}\n"
        "assert not (slow | {'torch', 'chromadb'}) & {*sys.modules}\n"
        "assert encoder.embed(['a', 'b']).shape == (2, 384) and not slow & {*sys.modules}\n"
    )
    done = python("-W", "default", "-c", code, str(tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not list(tmp_path.iterdir())


def test_a_short_text_is_not_padded_to_a_long_one(encoder, monkeypatch):
    rows: list[int] = []
    product = Weight.multiply

    def count(weight: Weight, given: Input, *more, **named):
        rows.append(given.x.shape[0])
        return product(weight, given, *more, **named)

    monkeypatch.setattr(Weight, "multiply", count)

    def multiplied(texts: list[str]) -> list[int]:
        rows.clear()
        encoder.embed(texts)
        return [*rows]

    short = "Write a SQL query: how many singers from France are older than 40?"
    alone = multiplied([short])
    assert alone and len(set(alone)) == 1 and 15 < alone[0] < 64
    assert set(multiplied([short * 40])) == {256}, "the most that it reads"
    assert sum(multiplied([short, short * 40])) == (256 + alone[0]) * len(alone)


def test_a_folder_and_its_checksum(encoder, packaged, tmp_path):
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


def test_its_own_lora_changes_vectors_and_checksum(encoder, packaged, tmp_path):
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


def test_a_folder_that_is_no_encoder_is_refused(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"a pickle")
    with pytest.raises(RamoleError, match="no .safetensors weights"):
        Encoder(str(tmp_path), data_dir=tmp_path).embed(["a"])
    save_file({"a": np.zeros(2, np.float32)}, tmp_path / "model.safetensors")
    with pytest.raises(RamoleError, match="cannot be loaded .*set RAMOLE_ENCODER"):
        Encoder(str(tmp_path), data_dir=tmp_path).embed(["a"])


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        *(
            (source, f"encoder '{source}' cannot be loaded .*RAMOLE_ENCODER")
            for source in ("no/such/folder", "nobody-here/nothing-there")
        ),
        ("~nosuchuser/a", "RAMOLE_ENCODER=~nosuchuser/a: nobody has that home"),
    ],
)
def test_an_unknown_id_is_refused(source, sentence, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(RamoleError, match=sentence):
        Encoder(source, data_dir=tmp_path).checksum  # noqa: B018
