"""The base model loaded: its 4-bit form, an int8 head, training's weights, and what is refused."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models
from torch import nn
from transformers import (
    CONFIG_MAPPING,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedTokenizerFast,
)
from transformers.pytorch_utils import Conv1D

from ramole_core import RamoleError, load_settings
from ramole_core.base.convert import end_tokens, mend_tokenizer
from ramole_core.base.files import weights_checksum
from ramole_core.base.model import dequantised, load_base, pick_quantization
from ramole_core.base.packed import Int8Linear, Nf4Linear, round_head
from ramole_core.base.shapes import read_shapes
from ramole_core.kernels.narrow import rounded_to_bytes
from tests.conftest import save_tiny_tokenizer
from tests.support.workers import python

BLOCKS = {  # sizes that fill NF4's blocks: q 128, k and v 32, of 64
    "hidden_size": 64,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 32,
}
FAMILIES = {
    **dict.fromkeys(["llama", "qwen2", "qwen3", "mistral", "gemma", "gemma2"], {}),
    "phi": {"num_attention_heads": 2, "num_key_value_heads": 1},
    "phi3": {"num_attention_heads": 2},
    "gpt2": {"n_embd": 64, "n_layer": 2, "n_head": 2},
}
MARKS = {"pad_token_id": 0, "bos_token_id": 256, "eos_token_id": 257, "vocab_size": 258}


def save_model(folder, family="llama", **sizes):
    """A random model of the family in fp32, and the tokenizer of bytes."""
    wanted = {**({} if family == "gpt2" else BLOCKS), **FAMILIES[family], **MARKS, **sizes}
    save_tiny_tokenizer(folder)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(CONFIG_MAPPING[family](**wanted)).save_pretrained(folder)
    return folder


def rounded(layer):
    """[o, i], what a 4-bit layer computes with; None for another layer."""
    return layer.numbers() if isinstance(layer, Nf4Linear) else None


def as_linear(layer):
    """[o, i], the weight of a plain layer."""
    return layer.weight.T if isinstance(layer, Conv1D) else layer.weight


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_loading_without_quantisation(tiny_llama, tmp_path, dtype):
    base = load_base(
        str(tiny_llama), data_dir=tmp_path, quantization="none", dtype=dtype, device="cpu"
    )
    assert base.dtype == base.model.dtype == getattr(torch, dtype)
    assert not base.model.training
    assert not [p for p in base.model.parameters() if p.requires_grad]
    assert base.tokenizer.chat_template


def test_auto_is_int4_on_a_cpu_and_nf4_on_a_card(tiny_nf4, tiny_llama, tmp_path):
    here = {"data_dir": tmp_path, "device": "cpu", "quantization": "auto"}
    assert load_base(str(tiny_nf4), **here).quantization == "int4"
    card = torch.device("cuda")
    assert pick_quantization("auto", device=card, folder=tiny_nf4) == "nf4"
    assert pick_quantization("none", device=card, folder=tiny_nf4) == "none"
    loaded = load_base(str(tiny_llama), **here)
    assert loaded.quantization == "none", "no layer of it fits into 4 bits"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "float16"}, "float16 needs a GPU"),
        ({"device": "cuda"}, "sees no GPU"),
        ({"device": "cpu"}, "no linear layer that 4 bits can hold .*ION=none"),
        ({"dtype": "int9"}, "DTYPE=int9 is not known; choose auto, float32"),
        ({"quantization": "int8"}, "QUANTIZATION=int8 is not known; choose auto, nf4, int4, none"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(tiny_llama, tmp_path, options, message, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RamoleError, match=message):
        load_base(str(tiny_llama), data_dir=tmp_path, **options)


def test_the_checksum_follows_the_weights_and_is_remembered(tiny_llama, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_llama, folder)
    first = weights_checksum(folder, data_dir=tmp_path)
    assert weights_checksum(folder, data_dir=tmp_path) == first
    remembered = (tmp_path / "base/checksums.json").read_text()
    assert first in remembered
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "model.safetensors").write_bytes(data)
    assert weights_checksum(folder, data_dir=tmp_path) != first


@pytest.mark.parametrize("family", FAMILIES)
def test_training_sees_the_very_weights_that_are_served(family, tmp_path):
    base = load_base(
        str(save_model(tmp_path, family)), data_dir=tmp_path, dtype="float32", device="cpu"
    )
    served = {path: rounded(base.model.get_submodule(path)) for path in read_shapes(tmp_path)}
    ids = torch.tensor([[5, 6, 7, 8]])
    logits = base.model(ids).logits
    plain = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    training = dequantised(base)
    for path, weight in served.items():
        assert not torch.equal(as_linear(plain.get_submodule(path)), weight)
        assert torch.equal(as_linear(training.get_submodule(path)), weight), path
    noise = (training(ids).logits - logits).norm()
    assert (plain(ids).logits - logits).norm() > 1000 * noise


def test_layers_that_do_not_fill_blocks_stay_as_they_are(tmp_path):
    save_model(tmp_path, head_dim=24)  # k and v have 24 outputs, q 96; o has 96 inputs
    base = load_base(str(tmp_path), data_dir=tmp_path, dtype="float32", device="cpu")
    kinds = {path: rounded(base.model.get_submodule(path)) for path in read_shapes(tmp_path)}
    packed = {path.rpartition(".")[2] for path, weight in kinds.items() if weight is not None}
    assert packed == {"q_proj", "gate_proj", "up_proj", "down_proj"}
    assert type(base.model.lm_head) is nn.Linear
    assert base.model(torch.tensor([[5, 6, 7]])).logits.isfinite().all()
    training = dequantised(base).model.layers[1].self_attn.k_proj.weight
    assert torch.equal(training, base.model.model.layers[1].self_attn.k_proj.weight)


def change_config(folder, **entries):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **entries}))


def change_weights(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def only_pickle(folder):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


Q = "model.layers.1.self_attn.q_proj.weight"
SPOILT = {
    "quantised already .gptq": lambda f: change_config(
        f, quantization_config={"quant_method": "gptq", "bits": 4}
    ),
    "no file named model.safetensors": only_pickle,
    f"lack 1 weights, first {Q}": lambda f: change_weights(f, lambda w: w.pop(Q)),
    f"do not have the config's shapes, first .*{Q}": lambda f: change_weights(
        f, lambda w: w.update({Q: w[Q][:5].contiguous()})
    ),
    "incomplete metadata": lambda f: (f / "model.safetensors").write_bytes(
        (f / "model.safetensors").read_bytes()[:-99]
    ),
    "its tokenizer": lambda f: (f / "tokenizer.json").write_text("{}"),
    "not a valid JSON": lambda f: (f / "config.json").write_text("{"),
    "Unrecognized configuration class": lambda f: change_config(f, model_type="t5"),
    "does not recognize this architecture": lambda f: change_config(f, model_type="new"),
    "contains custom code": lambda f: change_config(
        f, model_type="new", auto_map={"AutoConfig": "new.Config"}
    ),
}


@pytest.mark.parametrize("message", SPOILT)
def test_a_spoilt_folder_is_refused_in_a_sentence(message, tiny_llama, tmp_path, capsys):
    folder = tmp_path / "model"
    shutil.copytree(tiny_llama, folder)
    load = {"data_dir": tmp_path, "quantization": "none", "device": "cpu"}
    assert load_base(str(folder), **load).checksum
    SPOILT[message](folder)
    with pytest.raises(RamoleError, match=message) as refused:
        load_base(str(folder), **load)
    assert "set RAMOLE_BASE_MODEL to" in str(refused.value) and "\n" not in str(refused.value)
    assert capsys.readouterr().err == ""


def test_loading_says_nothing_of_its_own_and_does_without_bitsandbytes(tmp_path):
    """In a process of its own, on a CPU: libraries speak when they are imported."""
    folder = save_model(tmp_path / "model")
    code = (
        "import pathlib, sys; from ramole_core.base.model import dequantised, load_base;"
        "base = load_base(sys.argv[1], data_dir=pathlib.Path(sys.argv[1]).parent, device='cpu');"
        "assert type(base.model.model.layers[0].mlp.up_proj).__name__ == 'Nf4Linear';"
        "dequantised(base); assert 'bitsandbytes' not in sys.modules"
    )
    done = python("-c", code, str(folder))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("behind", "ends"),
    [("<end_of_turn>\n", [1, 2]), ("<eos>", 1), ("\n", 1), ("<b>", 1)],
)
def test_what_a_template_writes_behind_an_answer_ends_it_too(behind, ends):
    marks = ["<bos>", "<eos>", "<end_of_turn>"]
    vocabulary = {c: n for n, c in enumerate([*marks, *map(chr, range(10, 127))])}
    letters = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=letters, eos_token="<eos>", additional_special_tokens=marks[2:]
    )
    assert end_tokens(tokenizer) == 1, "without a template"
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['role'] + ': ' + m['content'] }}" + behind + "{% endfor %}"
    )
    assert end_tokens(tokenizer) == ends


def test_a_tokenizer_that_splits_a_turns_end_is_refused(tiny_llama):
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    tokenizer.pad_token = None
    mend_tokenizer(tokenizer, "tiny")
    assert tokenizer.pad_token == "<|im_end|>"
    tokenizer.chat_template = "{{ '<|im_end|>' }}"
    tokenizer.encode = lambda text, add_special_tokens: list(text)
    with pytest.raises(RamoleError, match=r"tiny has .*<\|im_start\|>, .* splits into 12 tokens"):
        mend_tokenizer(tokenizer, "tiny")


def test_the_real_base_in_4_bit_knows_the_capital_of_france(real_base_folder, tmp_path):
    base = load_base(str(real_base_folder), data_dir=tmp_path, device="cpu")
    assert len(read_shapes(real_base_folder)) == 210
    assert base.model.get_memory_footprint() < 130e6
    assert base.tokenizer("<|im_end|>")["input_ids"] == [base.tokenizer.eos_token_id]
    prompt = base.tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}],
        tokenize=False,
        add_generation_prompt=True,
    )
    assert "You are a helpful AI assistant named SmolLM, trained by Hugging Face" in prompt
    ids = base.tokenizer(prompt, add_special_tokens=False, return_tensors="pt")
    assert ids["input_ids"][0, 0] == base.tokenizer.convert_tokens_to_ids("<|im_start|>")
    assert base.model(**ids).logits.isfinite().all()
    answer = base.model.generate(**ids, max_new_tokens=8, do_sample=False)
    assert "Paris" in base.tokenizer.decode(answer[0])


# The output head in int8


def test_each_row_is_within_half_a_step_of_its_own(real_base_folder, tmp_path):
    base = load_base(
        str(real_base_folder), data_dir=tmp_path, quantization="none", device="cpu", head="int8"
    )
    head = base.model.get_output_embeddings()
    assert isinstance(head, Int8Linear) and base.head == "int8"
    full = base.model.get_input_embeddings().get_parameter("weight").float()  # tied to the head
    off = (head.weight * head.scales[:, None] - full).abs()
    assert (off <= head.scales[:, None] / 2 * 1.01).all()
    assert (head.weight.abs().amax(1) == 127).all()
    assert base.model.dtype == torch.bfloat16


def test_rows_of_zeros_stay_zeros():
    numbers, scales = rounded_to_bytes(torch.tensor([[0.0, 0.0], [2.0, -1.0]]))
    assert numbers.tolist() == [[0, 0], [127, -64]] and scales.isfinite().all()


def test_the_setting_is_read_and_what_has_no_head_is_refused(monkeypatch, tiny_llama):
    monkeypatch.setenv("RAMOLE_HEAD", "int8")
    assert load_settings().head == "int8"
    model = AutoModelForCausalLM.from_pretrained(tiny_llama)
    model.lm_head = nn.Linear(4, 4, device="meta")
    with pytest.raises(RamoleError, match="no plain output head on the CPU .*RAMOLE_HEAD=full"):
        round_head("this", model)
