"""What a model of one's own does with its tokens: which end an answer, which it does not have."""

import shutil
from dataclasses import replace

import pytest
from transformers import AutoTokenizer, GenerationConfig

from ramole_core import RamoleError, Request
from ramole_core.base.chat_template import NEXT_TURN
from ramole_core.base.model import load_base
from ramole_core.base.shapes import read_shapes
from ramole_core.composition import Candidate
from ramole_core.engine.reader import RequestReader, facts_of_model
from ramole_core.layers.layout import find_layout


@pytest.fixture(scope="module")
def base(tiny_llama, tmp_path_factory):
    return load_base(
        str(tiny_llama), data_dir=tmp_path_factory.mktemp("data"), quantization="none", device="cpu"
    )


def facts_of(base):
    return facts_of_model(
        base, layout=find_layout(base.model, read_shapes(base.folder)), exact=True
    )


@pytest.mark.parametrize("said", [0, [0, 3], 5, None, [], [None], [3, 999]], ids=str)
def test_the_config_says_which_tokens_end_an_answer_and_0_is_one(base, monkeypatch, said):
    assert base.tokenizer.eos_token_id == 257
    config = GenerationConfig()
    config.eos_token_id = said
    monkeypatch.setattr(base.model, "generation_config", config)
    there = {one for one in (said if isinstance(said, list) else [said]) if one in (0, 3, 5)}
    assert facts_of(base).eos == (there or {257})


def test_a_tokenizer_whose_end_token_is_0_ends_answers_too(base, monkeypatch):
    monkeypatch.setattr(base.model, "generation_config", GenerationConfig())
    tokenizer = AutoTokenizer.from_pretrained(base.folder)
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(0)
    assert tokenizer.eos_token_id == 0
    assert facts_of(replace(base, tokenizer=tokenizer)).eos == {0}


@pytest.mark.parametrize("raw", [False, True])
def test_a_token_that_the_model_lacks_is_refused_where_a_text_has_it(tiny_llama, tmp_path, raw):
    folder = shutil.copytree(tiny_llama, tmp_path / "model")
    base = load_base(str(folder), data_dir=tmp_path, quantization="none", device="cpu")
    base.tokenizer.add_tokens(["<extra>"])
    reader = RequestReader(base.tokenizer, facts_of(base), weights=lambda method: None)
    assert reader.read(Request("ordinary", raw=raw)).ids
    wanted = "has token 258 .'<extra>' of the tokenizer.,.*tokens 0 to 257; leave it out"
    with pytest.raises(RamoleError, match=wanted):
        reader.read(Request("an <extra> word", raw=raw))
    fitted = Request("a", method="lorahub", examples=[("a", "b <extra>")], raw=raw)
    prepared = reader.prepare(fitted, [Candidate("a", 1.0, "c", dict)])
    with pytest.raises(RamoleError, match=wanted):
        reader.fit(prepared)


def test_plain_turns_end_where_the_users_next_one_begins(tiny_llama, tmp_path):
    folder = shutil.copytree(tiny_llama, tmp_path / "model")
    (folder / "chat_template.jinja").unlink()
    base = load_base(str(folder), data_dir=tmp_path, quantization="none", device="cpu")
    facts = facts_of(base)
    assert facts.notes == base.notes and facts.notes
    reader = RequestReader(base.tokenizer, facts, weights=lambda method: None)

    def stops(request):
        prepared = reader.prepare(request, [])
        assert reader.complete(prepared).request == prepared.request  # at an engine elsewhere
        return prepared.request.stop

    request = Request("Hi", method="base", stop=("x",))
    assert stops(request) == ("x", NEXT_TURN)
    assert stops(replace(request, raw=True)) == ("x",)


def test_a_model_that_was_taught_turns_has_no_stop_of_ours(base):
    reader = RequestReader(base.tokenizer, facts_of(base), weights=lambda method: None)
    assert reader.prepare(Request("Hi", method="base"), []).request.stop == ()
