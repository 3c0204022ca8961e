"""The whole system on a tiny base: real engine, pool, index and encoder, in a folder of its own."""

import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path

PROMPTS = ("Will it rain in Oslo?", "How long do I boil an egg?", "What is 3 plus 4?")
ROWS = 48
TOKENS = 24
MEASURED = ("seconds", "first_token_seconds", "stages")
"""Of an answer's line: what is another number each time."""


def write_system(root: Path) -> None:
    """A random Llama of two layers, and an adapter for each prompt."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from ramole_core import Ramole, load_settings
    from ramole_core.base.shapes import read_shapes
    from tests.conftest import save_tiny_tokenizer
    from tests.test_ramole import write_lora

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
    rows = "".join(f"{PROMPTS[n % 3]} {n}\n" for n in range(ROWS))
    (root / "rows.csv").write_text(f"prompt\n{rows}")


def say_settings(root: Path) -> None:
    """The environment of whoever opens it."""
    for name in [name for name in os.environ if name.startswith("RAMOLE_")]:
        del os.environ[name]
    said = {"BASE_MODEL": root / "base", "DATA_DIR": root / "data", "DEVICE": "cpu"}
    said |= {"QUANTIZATION": "none", "DTYPE": "float32", "ADAPTERS_DIR": root / "adapters"}
    os.environ.update({f"RAMOLE_{name}": str(value) for name, value in said.items()})
    warnings.simplefilter("ignore")


def answer_batch(root: Path, out: Path) -> int:
    """The command `batch` over all rows, going on where `out` ends."""
    from ramole_core.cli import main

    say_settings(root)
    words = ["batch", str(root / "rows.csv"), "--out", str(out), "--resume"]
    return main([*words, "--method", "mixture", "--max-new-tokens", str(TOKENS)])


def answers_of(out: Path) -> list[str]:
    """The lines of a batch's whole file, less what is measured; a similarity is the same to six
    places whoever was embedded beside it."""
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    for line in lines:
        line["similarities"] = [round(score, 6) for score in line["similarities"]]
        for name in MEASURED:
            del line[name]
    return sorted(map(json.dumps, lines))


def stream_on(root: Path, tell: Callable[[], None], *, answers: int | None = None) -> list[object]:
    """Streams answers, without end or so many; returns the last one's text and traced weights."""
    from ramole_core import Generation, Ramole, Request, load_settings

    say_settings(root)
    text, weights, number = "", 0.0, 0
    with Ramole(load_settings()) as ramole:
        assert ramole.pool.problems == [], ramole.pool.problems
        tell()
        while answers is None or number < answers:
            number += 1
            request = Request(PROMPTS[0], method="mixture", max_new_tokens=TOKENS, trace=True)
            for _, item in ramole.stream_batch([request]):
                if isinstance(item, Generation):
                    assert item.trace is not None
                    text, weights = item.text, float(item.trace.contribution.sum())
        hits = [[hit.name, hit.score] for hit in ramole.retrieve(PROMPTS[1], 3)]
    return [text, weights, hits]
