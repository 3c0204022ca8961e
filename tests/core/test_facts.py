"""What is said of the base model: its name before it is there, its size and limits after."""

from dataclasses import replace
from types import SimpleNamespace

import torch
from transformers import AutoModelForCausalLM

from ramole_core import DEFAULT_METHOD, Request, Settings, asked_fields, model_words
from ramole_core.base.files import count_parameters
from ramole_core.base.model import load_base
from ramole_core.base.shapes import read_shapes
from ramole_core.engine.reader import facts_of_model
from ramole_core.layers import find_layout


def test_the_size_is_that_of_the_model(tiny_llama):
    model = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)
    own = sum(p.numel() for p in model.parameters())
    assert count_parameters(tiny_llama) == own > 10_000


def test_a_model_is_told_by_name_size_and_limit(tiny_llama, monkeypatch):
    settings = Settings(base_model="pypi:tiny-llm==0.2")
    unknown = SimpleNamespace(settings=settings, model_facts=None)
    assert model_words(unknown) == "tiny-llm 0.2"
    facts = SimpleNamespace(context=512, quantization="none", dtype="float32")
    ramole = SimpleNamespace(settings=settings, model_facts=facts)
    monkeypatch.setattr("ramole_core.facts.find_base", lambda source, data_dir: tiny_llama)
    for count, said in ((134_515_008, "135 million"), (1_710_000_000, "1.7 billion")):
        monkeypatch.setattr("ramole_core.facts.count_parameters", lambda folder, n=count: n)
        words = f"tiny-llm 0.2, {said} parameters in float32, reads up to 512 tokens"
        assert model_words(ramole) == words
    for facts.quantization, said in (("nf4", "NF4"), ("int4", "int4")):
        assert f"parameters in {said}, reads" in model_words(ramole)


def test_the_facts_of_a_model_are_its_own(tiny_llama, tmp_path):
    base = load_base(str(tiny_llama), data_dir=tmp_path, quantization="none", dtype="float32")
    layout = find_layout(base.model, read_shapes(tiny_llama))
    found = facts_of_model(base, layout=layout, exact=True)
    assert found.context == base.model.config.max_position_embeddings
    assert found.eos == {base.tokenizer.eos_token_id} and found.vocabulary == len(base.tokenizer)
    assert (found.quantization, found.dtype, found.checksum) == ("none", "float32", base.checksum)


def test_what_was_asked_asks_the_same_again_and_does_not_say_who():
    asked = Request("hi", method="mixture", history=[("a", "b", ["x"])], owner="me", seed=3)
    said = asked_fields(asked)
    assert "owner" not in said and "k" not in said
    assert Request(**said) == replace(asked, owner=None)
    assert asked_fields(Request("hi")) == {"prompt": "hi", "method": DEFAULT_METHOD}
    tokens = Request("", raw=True, prompt_ids=[3, 4], method="base")
    assert Request(**asked_fields(tokens)) == tokens, "a prompt of tokens needs no text"
