"""Same as PEFT: an adapter that PEFT wrote gives PEFT's own logits, for every kind that is taken.

PEFT trains nothing here: its adapters get random weights, are saved by `save_pretrained`, and are
read back by PEFT for the reference and by the pool for ours.
"""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from ramole_core import AdapterRefused, Request
from ramole_core.base.shapes import read_shapes
from ramole_core.composition import Candidate, Lora
from ramole_core.engine.placement import Placer
from ramole_core.engine.store import UnitStore
from ramole_core.layers import Bank, BatchMix, find_layout, install_serving
from ramole_core.pool import Pool

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
MLP = ["gate_proj", "up_proj", "down_proj"]
ALL = ATTENTION + MLP
Q1 = "model.layers.1.self_attn.q_proj"

# PEFT sorts the keys of its patterns when it saves; the first that matches decides. They are given
# in that order here, so that it trains and reads the same adapter.
SAID = {"r": 5, "lora_alpha": 8, "target_modules": ALL}
SOME_LAYERS = {"layers_to_transform": [0, 2], "layers_pattern": "layers"}
RSLORA_PATTERNS = {
    "rank_pattern": {"down_proj": 3, "v_proj|o_proj": 8},
    "alpha_pattern": {"down_proj": 2, Q1: 12},
}
RANKS = {r"layers\.[02]\.mlp\.(up|gate)_proj": 2, Q1: 11, "q_proj": 9}
ALPHAS = {r".*\.1\..*down_proj": 17, "down_proj": 3}
REGEX = r".*\.[12]\.(self_attn\.[qv]_proj|mlp\.down_proj)"
GPT2 = {"base": "gpt2", "fan_in_fan_out": True, "target_modules": ["c_attn", "c_fc", "c_proj"]}
KINDS: dict[str, dict[str, object]] = {
    name: SAID | said
    for name, said in {
        "rank 1": {"r": 1, "lora_alpha": 2},
        "rank 64": {"r": 64, "lora_alpha": 32},
        "alpha that is no power of two": {"r": 6, "lora_alpha": 7},
        "rslora": {"r": 6, "lora_alpha": 5, "use_rslora": True},
        "rank_pattern": {"r": 4, "lora_alpha": 6, "rank_pattern": RANKS},
        "alpha_pattern": {"r": 4, "lora_alpha": 6, "alpha_pattern": ALPHAS},
        "rslora with both patterns": {"lora_alpha": 6, "use_rslora": True, **RSLORA_PATTERNS},
        "regex target_modules": {"r": 7, "lora_alpha": 9, "target_modules": REGEX},
        "all-linear": {"r": 3, "lora_alpha": 5, "target_modules": "all-linear"},
        "some layers": SOME_LAYERS,
        "one layer": {"layers_to_transform": 1},
        "attention only": {"r": 8, "lora_alpha": 12, "target_modules": ATTENTION},
        "MLP only": {"r": 8, "lora_alpha": 12, "target_modules": MLP},
        "exclude_modules": {"exclude_modules": r".*layers\.1.*|.*k_proj"},
        "dropout": {"lora_dropout": 0.3},
        "gaussian start": {"init_lora_weights": "gaussian"},
        "mica start": {"init_lora_weights": "mica"},
        "fp16": {"r": 6, "lora_alpha": 7, "dtype": torch.float16},
        "bf16": {"r": 6, "lora_alpha": 24, "dtype": torch.bfloat16},
        "bf16 with a scale it cannot hold": {"r": 6, "lora_alpha": 7, "dtype": torch.bfloat16},
        "GPT-2, fan_in_fan_out": GPT2,
        "GPT-2, patterns": GPT2 | {"rank_pattern": {"c_proj": 2, r"h\.1\.attn\.c_proj": 9}},
    }.items()
}


@pytest.fixture(scope="module")
def bases(tiny_llama, tmp_path_factory) -> dict[str, Path]:
    torch.manual_seed(1)
    gpt2 = tmp_path_factory.mktemp("tiny-gpt2")
    sizes = {"n_embd": 28, "n_layer": 3, "n_head": 4, "n_positions": 64}
    config = GPT2Config(vocab_size=61, bos_token_id=0, eos_token_id=0, **sizes)
    GPT2LMHeadModel(config).save_pretrained(gpt2)
    return {"llama": tiny_llama, "gpt2": gpt2}


def load_base(folder: Path):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.eval().requires_grad_(False)


def write_by_peft(base: Path, folder: Path, *, dtype=torch.float32, **config) -> PeftModel:
    """An adapter with random weights, saved by PEFT; returns the model as PEFT reads it back."""
    model = get_peft_model(load_base(base), LoraConfig(task_type="CAUSAL_LM", **config))
    generator = torch.Generator().manual_seed(5)
    for name, weight in model.named_parameters():
        if "lora_" in name:
            size = weight.shape[1] ** -0.5 if "lora_A" in name else 0.2
            weight.data = torch.randn(weight.shape, generator=generator).mul(size).to(dtype)
    model.save_pretrained(folder)
    return PeftModel.from_pretrained(load_base(base), str(folder)).eval()


def add_to_pool(tmp_path: Path, base: Path, folder: Path):
    """The card, and the adapter's LoRAs by module path."""
    (tmp_path / "samples").mkdir(exist_ok=True)
    with Pool(
        adapters_dir=tmp_path / "samples",
        data_dir=tmp_path / "data",
        shapes=lambda: read_shapes(base),
    ) as pool:
        card = pool.add(folder)
        modules = pool.tensors(card).modules
    return card, {path: Lora(A, B) for path, (A, B) in modules.items()}


def served_logits(tmp_path: Path, base: Path, loras, ids, *, method: str, way: str):
    """Logits of the served model, one adapter in every row as the method takes it, its tensors
    packed on disk and mapped back as the engine does it."""
    model = load_base(base)
    layout = find_layout(model, read_shapes(base))
    store = UnitStore(layout, dtype=torch.float32, limit=2**24, folder=tmp_path / "units")
    bank = Bank(layout, device=torch.device("cpu"), dtype=torch.float32, limit=2**30)
    placer = Placer(
        layout,
        bank=bank,
        store=store,
        weights=lambda method: None,
        means=lambda turn: {},
        dtype=torch.float32,
    )
    placement = placer.prepare(
        Request("made up", method=method), [Candidate("it", 0.5, "it", lambda: loras)]
    )
    _, serving = install_serving(model, layout)
    batch = BatchMix(bank, [placer.pin(placement)] * len(ids))
    with torch.inference_mode(), serving.mixing(batch, [ids.shape[1]] * len(ids), way=way):
        return model(ids).logits


@pytest.mark.parametrize("kind", KINDS)
def test_one_adapter_with_weight_1_gives_pefts_logits(bases, tmp_path, kind):
    config = dict(KINDS[kind])
    base = bases[str(config.pop("base", "llama"))]
    reference = write_by_peft(base, tmp_path / "adapter", **config)
    ids = torch.randint(0, 61, (2, 9), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = reference(ids).logits
        bare = load_base(base)(ids).logits
    assert (expected - bare).abs().max() > 0.1
    card, loras = add_to_pool(tmp_path, base, tmp_path / "adapter")
    wrapped = {
        name.removeprefix("base_model.model."): module
        for name, module in reference.named_modules()
        if hasattr(module, "lora_A")
    }
    assert card.ranks == {path: module.r["default"] for path, module in wrapped.items()}
    assert card.scales == {path: module.scaling["default"] for path, module in wrapped.items()}
    if kind in ("rank_pattern", "alpha_pattern"):  # they meet some modules and not others
        assert kind != "rank_pattern" or set(card.ranks.values()) == {2, 4, 9, 11}
        assert kind != "alpha_pattern" or set(card.scales.values()) == {6 / 4, 17 / 4, 3 / 4}
    ways = ("selection", "all"), ("mixture", "rows"), ("fusion", "rows"), ("ramole_plus", "all")
    for method, way in ways:
        ours = served_logits(tmp_path, base, loras, ids, method=method, way=way)
        torch.testing.assert_close(ours, expected, atol=1e-4, rtol=0)


@pytest.mark.filterwarnings("ignore:.*changes the base weights:UserWarning")
@pytest.mark.parametrize("start", ["pissa", "olora"])
def test_a_start_that_changes_the_base_is_taken_only_when_converted(bases, tmp_path, start):
    base, ids = bases["llama"], torch.arange(3, 12)[None].expand(2, -1)
    config = LoraConfig(
        task_type="CAUSAL_LM", r=3, lora_alpha=5, target_modules=ALL, init_lora_weights=start
    )
    model = get_peft_model(load_base(base), config)
    model.peft_config["default"].init_lora_weights = True
    model.save_pretrained(tmp_path / "first")
    model.peft_config["default"].init_lora_weights = start
    generator = torch.Generator().manual_seed(5)
    for name, weight in model.named_parameters():
        if "lora_" in name:
            weight.data += torch.randn(weight.shape, generator=generator) * 0.1
    with torch.no_grad():
        expected = model(ids).logits
    model.save_pretrained(tmp_path / "unconverted")
    with pytest.raises(AdapterRefused, match="changes the base's weights"):
        add_to_pool(tmp_path, base, tmp_path / "unconverted")
    model.save_pretrained(
        tmp_path / "converted", path_initial_model_for_weight_conversion=str(tmp_path / "first")
    )
    card, loras = add_to_pool(tmp_path, base, tmp_path / "converted")
    assert card.rank == 6
    ours = served_logits(tmp_path, base, loras, ids, method="selection", way="rows")
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"use_dora": True}, "is DoRA"),
        ({"bias": "lora_only"}, "base's biases"),
        ({"lora_bias": True}, "bias of its own"),
        ({"modules_to_save": ["lm_head"]}, "whole trained modules"),
        ({"trainable_token_indices": [3, 4]}, "trains tokens"),
        ({"layer_replication": [(0, 2), (1, 3)]}, "repeats layers"),
        ({"alora_invocation_tokens": [5, 6]}, "aLoRA"),
        ({"target_modules": ["q_proj", "lm_head"]}, "all adapters share"),
        ({"target_modules": ["q_proj", "embed_tokens"]}, "(all adapters share|on an embedding)"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")  # PEFT's own, about the odd things asked of it
def test_what_peft_writes_and_we_refuse(bases, tmp_path, config, sentence):
    config = {"r": 4, "lora_alpha": 6, "target_modules": ALL, **config}
    model = get_peft_model(load_base(bases["llama"]), LoraConfig(task_type="CAUSAL_LM", **config))
    model.save_pretrained(tmp_path / "adapter")
    with pytest.raises(AdapterRefused, match=sentence):
        add_to_pool(tmp_path, bases["llama"], tmp_path / "adapter")
