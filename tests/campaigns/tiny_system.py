"""The whole system on a tiny base: real engine, pool, index and encoder, in a folder of its own."""

import os
import warnings
from pathlib import Path

PROMPTS = ("Will it rain in Oslo?", "How long do I boil an egg?", "What is 3 plus 4?")


def write_system(root: Path) -> None:
    """A random Llama of two layers, and an adapter for each prompt."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from ramole_core import Ramole, load_settings
    from ramole_core.base.shapes import read_shapes
    from tests.conftest import save_tiny_tokenizer
    from tests.core.test_ramole import write_lora

    (root / "base").mkdir()
    (root / "adapters").mkdir()
    tokenizer = save_tiny_tokenizer(root / "base")
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 56, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 12}
    config = LlamaConfig(
        **(sizes | heads), vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id
    )
    LlamaForCausalLM(config).save_pretrained(root / "base")
    say_settings(root)
    with Ramole(load_settings()) as ramole:
        for seed, prompt in enumerate(PROMPTS):
            folder = write_lora(root / f"l{seed}", read_shapes(root / "base"), rank=2, seed=seed)
            ramole.pool.add(folder, name=f"l{seed}", examples=[prompt])


def say_settings(root: Path) -> None:
    """The environment of whoever opens it."""
    for name in [name for name in os.environ if name.startswith("RAMOLE_")]:
        del os.environ[name]
    said = {"BASE_MODEL": root / "base", "DATA_DIR": root / "data", "DEVICE": "cpu"}
    said |= {"QUANTIZATION": "none", "DTYPE": "float32", "ADAPTERS_DIR": root / "adapters"}
    os.environ.update({f"RAMOLE_{name}": str(value) for name, value in said.items()})
    warnings.simplefilter("ignore")
