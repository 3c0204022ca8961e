"""Models of other kinds than Llama, and other activations: no bit of logits follows the batch."""

from collections.abc import Callable

import pytest
import torch
import transformers as hf

from ramole_core.engine.engine import EngineSizes
from tests.conftest import save_tiny_tokenizer
from tests.support.schedules import Job, Pair, ask
from tests.support.tiny_engine import TinyEngine

JOBS = [
    Job(ask(3, "base")),
    Job(ask(40), ("ant", "bee")),
    Job(ask(25, "mixture"), ("bee", "cat")),
    Job(ask(9, "selection"), ("ant",)),
    Job(ask(5, history=[("one two", "three")]), ("cat",), (("ant", "bee"),)),
    Job(ask(60, "base")),
]
RANKS = {"ant": 2, "bee": 7, "cat": 4}
SIZES = {
    "hidden_size": 40,
    "intermediate_size": 57,  # whole vectors leave something over
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 12,
    "max_position_embeddings": 512,
}


MODELS: dict[str, Callable] = {
    "learned positions": lambda **k: hf.GPT2LMHeadModel(
        hf.GPT2Config(n_embd=40, n_layer=2, n_head=4, n_positions=512, **k)
    ),
    "a window": lambda **k: hf.Gemma3ForCausalLM(
        hf.Gemma3TextConfig(**SIZES, sliding_window=40, **k)
    ),
    "an activation by PyTorch": lambda **k: hf.LlamaForCausalLM(
        hf.LlamaConfig(**SIZES, hidden_act="mish", **k)
    ),
}
"""Of each family that is served `test_bases.py` shows less of the same."""


@pytest.mark.parametrize("name", MODELS)
def test_no_bit_differs_in_other_models(tmp_path, name):
    tokenizer = save_tiny_tokenizer(tmp_path)
    torch.manual_seed(0)
    tokens = {f"{one}_token_id": getattr(tokenizer, f"{one}_token_id") for one in ("bos", "eos")}
    model = MODELS[name](vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, **tokens)
    model.save_pretrained(tmp_path)
    narrow = TinyEngine(tmp_path, EngineSizes(max_batch=4, prefill_chunk=7))
    roomy = TinyEngine(tmp_path)
    pair = Pair(JOBS, roomy, narrow, RANKS)
    everyone = [("ask", job, given) for given in (0, 3) for job in range(len(JOBS))]
    assert pair.play([*everyone, ("step", 3, 0), *everyone[::-1]]) == 0
    before = narrow.engine.stats()["replayed"]
    long = [(ask(9, "mixture", max_new_tokens=15), [("ant", 2), ("bee", 7)])]
    long += [(ask(30, "base", max_new_tokens=30), [])]
    ours, alone = ([heard.tokens for heard in one.run(*long)] for one in (narrow, roomy))
    assert ours == alone and roomy.engine.stats()["replayed"] == 0
    assert narrow.engine.stats()["replayed"] - before > 10
