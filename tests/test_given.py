"""Tokens that are given: which an answer can go on from."""

from types import SimpleNamespace

import pytest
from transformers import AutoTokenizer

from ramole_core.engine.reader import check_prefix
from ramole_core.errors import RamoleError
from ramole_core.request import Request
from tests.few_prompts import few_reference_prompts  # noqa: F401  a fixture
from tests.tiny_engine import TinyEngine


@pytest.fixture(scope="module")
def tiny(tiny_llama):
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)

    def check(text: str, *more: int, vocabulary=258, **options):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        request = Request("a", prefix_ids=[*ids, *more], **options)
        check_prefix(request, tokenizer, eos=frozenset([257]), vocabulary=vocabulary)

    return SimpleNamespace(check=check)


def test_an_answer_that_goes_on_is_taken(tiny):
    tiny.check("well then")
    tiny.check("well then ST", stop=["STOP"])
    tiny.check("well", 257, ignore_eos=True)
    tiny.check("")


@pytest.mark.parametrize(
    ("text", "more", "options", "message"),
    [
        ("well", [258], {}, "prefix_ids has 258.*tokens are 0 to 257"),
        ("well", [257, 3], {}, "Token 5 of prefix_ids, 257, ends the answer"),
        ("well STOP here", [], {"stop": ["STOP"]}, "At token 9 prefix_ids has a stop string"),
    ],
)
def test_what_has_ended_or_is_no_token_is_told(tiny, text, more, options, message):
    with pytest.raises(RamoleError, match=message):
        tiny.check(text, *more, **options)


def test_the_engine_checks_before_anything_waits(tiny_llama):
    tiny = TinyEngine(tiny_llama)
    adapters = tiny.chosen([("ant", 2)])
    for options, message in [
        ({"prefix_ids": [258]}, "0 to 257"),
        ({"prefix_ids": [257]}, "ends the answer"),
        ({"without": [("bee", None, None)]}, "mixes ant"),
        ({"without": [(None, 3, None)]}, "0 to 2"),
    ]:
        with pytest.raises(RamoleError, match=message):
            tiny.engine.prepare(Request("a", method="mixture", **options), adapters)
    good = Request("a", method="mixture", prefix_ids=[1], without=[("ant", 0, None)])
    prepared = tiny.engine.prepare(good, adapters)
    assert prepared.candidates == tuple(adapters) and len(prepared.turns) == 1
