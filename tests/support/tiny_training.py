"""A 2-layer Llama with a tokenizer of whole words, as a BaseModel: trains in seconds."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from ramole_core.base.chat_template import complete_template
from ramole_core.base.model import BaseModel
from ramole_core.composition import Lora
from ramole_core.training.recipe import MethodRecipe, Schedule
from ramole_core.training.rows import Row, Task

WORDS = ["<end>", "<unk>", *"say please red blue sing loud 0 1 2 3 4 5 6 OPTIONS: - yes no".split()]

SHAPES = {
    "model.layers.0.self_attn.q_proj": (24, 24),
    "model.layers.0.self_attn.k_proj": (24, 12),
    "model.layers.1.mlp.up_proj": (24, 36),
    "model.layers.1.mlp.down_proj": (36, 24),
}
"""Four of the base's modules."""


def make_task(name: str) -> Task:
    """17 rows to train on and 6 to measure: "say red 3" has the answer "red 3"."""
    rows = tuple(Row(f"say {name} {n % 7}", f"{name} {n % 5}") for n in range(23))
    return Task(name, rows[:17], rows[17:], "em")


def write_rows(file: Path, word: str, *, count: int = 41) -> Path:
    """A file of rows: "say red 3" has the answer "red 3"."""
    rows = [{"inputs": f"say {word} {n % 7}", "targets": f"{word} {n % 5}"} for n in range(count)]
    file.write_text("\n".join(map(json.dumps, rows)))
    return file


def method_recipe(name: str, settings: Mapping[str, float], **schedule: float) -> MethodRecipe:
    """Of few steps, measured and kept every few."""
    said = {"batch_rows": 5, "learning_rate": 2e-2, "warmup": 1, "dev_rows": 9}
    said |= {"evaluate_every": 4, "checkpoint_every": 3, **schedule}
    return MethodRecipe(name, settings, schedule=Schedule(**said))


def make_loras(
    shapes: Mapping[str, tuple[int, int]], ranks: Mapping[str, int], *, lacks: str, size: float
) -> dict[str, dict[str, Lora]]:
    """Random adapters of these ranks; the one that `lacks` names has no k_proj."""
    torch.manual_seed(5)
    return {
        name: {
            path: Lora(A=torch.randn(r, i) * i**-0.5, B=torch.randn(o, r) * size)
            for path, (i, o) in shapes.items()
            if name != lacks or "k_proj" not in path
        }
        for name, r in ranks.items()
    }


def build_base(dtype: torch.dtype, folder: Path) -> BaseModel:
    """The base, its files in `folder/tiny-base`."""
    words = Tokenizer(models.WordLevel({w: n for n, w in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, eos_token="<end>", unk_token="<unk>", pad_token="<end>"
    )
    complete_template(tokenizer, template=None)
    torch.manual_seed(11)
    config = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=24,
        intermediate_size=36,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        initializer_range=0.2,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=0,
    )
    model = LlamaForCausalLM(config).to(dtype).eval().requires_grad_(False)
    folder = folder / "tiny-base"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return BaseModel(
        model=model,
        tokenizer=tokenizer,
        name="tiny",
        folder=folder,
        checksum="0" * 64,
        quantization="none",
        dtype=dtype,
        device=torch.device("cpu"),
    )
