"""What is said of the base model: its name before it is there, its size and limits after."""

from dataclasses import replace
from types import SimpleNamespace

import torch
from transformers import AutoModelForCausalLM

from ramole_core import Settings, asked_fields, model_words
from ramole_core.base.model import load_base
from ramole_core.base.size import count_parameters
from ramole_core.request import Request


def test_the_size_is_that_of_the_model(tiny_llama):
    model = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)
    own = sum(p.numel() for p in model.parameters())
    assert count_parameters(tiny_llama) == own > 10_000


def test_a_model_is_told_by_name_size_and_limit(tiny_llama, tmp_path, monkeypatch):
    settings = Settings(base_model="pypi:tiny-llm==0.2")
    assert model_words(SimpleNamespace(settings=settings, loaded=False)) == "tiny-llm 0.2"
    base = load_base(str(tiny_llama), data_dir=tmp_path, quantization="none", dtype="float32")
    reads = base.model.config.max_position_embeddings
    ramole = SimpleNamespace(settings=settings, loaded=True, base=base)
    for count, said in ((134_515_008, "135 million"), (1_710_000_000, "1.7 billion")):
        monkeypatch.setattr("ramole_core.facts.count_parameters", lambda folder, n=count: n)
        words = f"tiny-llm 0.2, {said} parameters in float32, reads up to {reads:,} tokens"
        assert model_words(ramole) == words
    ramole.base = replace(base, quantization="nf4")
    assert "parameters in NF4" in model_words(ramole)


def test_what_was_asked_asks_the_same_again_and_does_not_say_who():
    asked = Request("hi", method="mixture", history=[("a", "b", ["x"])], owner="me", seed=3)
    said = asked_fields(asked)
    assert "owner" not in said and "k" not in said
    assert Request(**said) == replace(asked, owner=None)
    assert asked_fields(Request("hi")) == {"prompt": "hi", "method": "ramole"}
