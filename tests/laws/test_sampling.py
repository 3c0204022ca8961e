"""How a request changes the odds of its own tokens, and reports them; nobody else's are changed."""

import json
import math
from collections import Counter
from dataclasses import replace

import jsonschema
import pytest
import torch
from transformers import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from ramole_core import RamoleError, Request, read_request
from ramole_core.engine.answer_format import AnswerFormat
from ramole_core.engine.decoding import (
    changed_logits,
    choose_token,
    log_probability,
    make_generator,
)
from ramole_core.engine.engine import EngineSizes
from tests.support.tiny_engine import TinyEngine

VOCABULARY = 258
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 5},
        "sizes": {"type": "array", "items": {"type": "integer", "maximum": 99}, "maxItems": 3},
        "kind": {"enum": ["ant", "bee"]},
    },
    "required": ["name", "sizes", "kind"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def tiny(tiny_llama):
    return TinyEngine(tiny_llama)


def answer(tiny, request, contents=(("ant", 2), ("bee", 7))):
    """Steps and answer of one request, alone."""
    (heard,) = tiny.run((request, contents if request.method != "base" else ()))
    return heard.steps, heard.answer


# --- against transformers -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "theirs"),
    [
        ({"top_k": 4}, [TopKLogitsWarper(4)]),
        ({"min_p": 0.2}, [MinPLogitsWarper(0.2)]),
        (
            {"top_k": 9, "top_p": 0.7, "min_p": 0.1},
            [TopKLogitsWarper(9), TopPLogitsWarper(0.7), MinPLogitsWarper(0.1)],
        ),
    ],
)
def test_draws_are_among_the_tokens_that_transformers_leaves(said, theirs):
    logits = torch.randn(30, generator=torch.Generator().manual_seed(3))
    kept = TemperatureLogitsWarper(0.8)(None, logits[None].clone())
    for warper in theirs:
        kept = warper(None, kept)
    wanted = kept[0].softmax(-1)
    request = Request("a", temperature=0.8, seed=1, **said)
    generator = make_generator(request)
    drawn = Counter(choose_token(logits, request, generator=generator) for _ in range(1500))
    assert set(drawn) == set(wanted.nonzero().flatten().tolist()) and len(drawn) < 30
    for token, count in drawn.items():
        assert count / 1500 == pytest.approx(float(wanted[token]), abs=0.05)


def test_penalties_are_those_of_transformers_and_of_the_api_that_they_come_from():
    logits = torch.randn(12, generator=torch.Generator().manual_seed(5))
    prompt, given = [3, 4, 4], [4, 7, 7, 7]

    def changed(**said):
        request = Request("a", **said)
        return changed_logits(logits, request, prompt=prompt, answer=given, form=None)

    theirs = RepetitionPenaltyLogitsProcessor(1.7)(
        torch.tensor([prompt + given]), logits[None].double()
    )
    assert not torch.equal(theirs[0], logits.double())
    torch.testing.assert_close(changed(repetition_penalty=1.7), theirs[0])
    wanted = logits.double()  # mu[j] - c[j] * frequency - (c[j] > 0) * presence, of the answer
    for token, count in Counter(given).items():
        wanted[token] -= 0.5 + 0.25 * count
    torch.testing.assert_close(changed(presence_penalty=0.5, frequency_penalty=0.25), wanted)
    biased = changed(logit_bias={2: -100, 9: 1.5}) - logits.double()
    assert biased.tolist() == pytest.approx([0, 0, -100, *[0] * 6, 1.5, 0, 0])


@pytest.mark.parametrize("number", [math.inf, math.nan])
def test_a_draw_among_logits_that_are_no_numbers_takes_one_of_those(number):
    logits = torch.tensor([1.0, number, 2.0, 0.5])
    said = Request("x", temperature=1.0, seed=0)
    assert choose_token(logits, said, generator=make_generator(said)) == 1


def test_log_probabilities_are_the_model_s_own():
    logits = torch.randn(40, generator=torch.Generator().manual_seed(6))
    told, logs = log_probability(logits, 11, top=3), logits.double().log_softmax(-1)
    assert told.token == 11 and told.logprob == pytest.approx(float(logs[11]))
    best = logs.sort(descending=True)
    assert [token for token, _ in told.top] == best.indices[:3].tolist()
    assert [log for _, log in told.top] == pytest.approx(best.values[:3].tolist())


# --- in the engine --------------------------------------------------------------------------------

KNOBS = [
    {"repetition_penalty": 5.0},
    {"presence_penalty": 2.0, "frequency_penalty": 1.0},
    {"logit_bias": {65: 100.0}},
    {"temperature": 2.0, "seed": 3, "top_k": 3},
    {"temperature": 2.0, "seed": 3, "min_p": 0.9},
    {"json_schema": SCHEMA},
    {"json_schema": {"type": "object"}, "temperature": 1.5, "seed": 2, "top_k": 20},
]


def asked(said, **more) -> Request:
    open_end = {"ignore_eos": True} if "json_schema" not in said else {}
    return Request("a b c", "ramole", max_new_tokens=9, **{**open_end, **said, **more})


@pytest.mark.parametrize("said", KNOBS, ids=lambda said: "+".join(said))
def test_each_of_them_changes_the_answer_and_nobody_else_s_bits(tiny, said):
    plain = [asked({}, logprobs=2), asked({"temperature": 2.0, "seed": 3}, logprobs=0)]
    request, contents = asked(said, logprobs=2), (("ant", 2), ("bee", 7))
    alone = [answer(tiny, one)[0] for one in (*plain, request)]
    assert [s.token for s in alone[2]] not in [[s.token for s in steps] for steps in alone[:2]]
    together = tiny.run(*((one, contents) for one in (*plain, request, request)))
    for heard, wanted in zip(together, [*alone, alone[2]], strict=True):
        assert [s.likelihood for s in heard.steps] == [s.likelihood for s in wanted]
    assert alone[0][0].likelihood.logprob == alone[0][0].likelihood.top[0][1], "the likeliest"
    assert len(alone[0][0].likelihood.top) == 2 and alone[1][0].likelihood.top == ()
    whole, given = together[2], alone[2][0].token
    rest, again = answer(tiny, replace(request, prefix_ids=[given]))
    assert [s.likelihood for s in rest] == [s.likelihood for s in alone[2][1:]], "it goes on"
    assert (again.text, again.finish_reason) == (whole.answer.text, whole.answer.finish_reason)


@pytest.mark.parametrize("method", ["base", "ramole"])
def test_an_answer_of_a_schema_is_json_of_it_and_ends_by_itself(tiny, method):
    for seed in range(3):
        request = Request(
            "x", method, json_schema=SCHEMA, temperature=1.0, seed=seed, max_new_tokens=120
        )
        steps, told = answer(tiny, request)
        said = json.loads(told.text)
        jsonschema.validate(said, SCHEMA)
        assert told.finish_reason == "eos" and told.text == json.dumps(said, ensure_ascii=False)
        assert "".join(step.text for step in steps) == told.text


def test_an_answer_of_a_schema_that_is_cut_is_the_beginning_of_one(tiny):
    _, told = answer(tiny, Request("x", "base", json_schema=SCHEMA, max_new_tokens=5))
    assert told.finish_reason == "length" and told.text.startswith('{"nam')


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"json_schema": {"type": "nothing"}}, "json_schema cannot be followed"),
        ({"json_schema": {"pattern": "(", "type": "string"}}, "json_schema cannot be followed"),
        (
            {"json_schema": {"type": "integer", "maximum": 10**400}},
            "json_schema cannot be followed",
        ),
        ({"json_schema": SCHEMA, "prefix_ids": [65]}, "prefix_ids is no beginning of JSON"),
        ({"prefix_ids": [VOCABULARY]}, "prefix_ids has 258.*tokens are 0 to 257"),
        ({"prefix_ids": [65, 257, 3]}, "Token 2 of prefix_ids, 257, ends the answer"),
        ({"prefix_ids": [50, 51], "stop": ["T"]}, "At token 2 prefix_ids has a stop string"),
        ({"without": [("bee", None, None)]}, "mixes none"),
        ({"without": [(None, 3, None)]}, "0 to 2"),
        ({"prompt_ids": [2**31 - 1], "raw": True}, "the base model has tokens 0 to 257"),
        (
            {"logit_bias": {VOCABULARY: 1}},
            "has token 258, but the base model's tokens are 0 to 257",
        ),
    ],
)
def test_what_the_model_cannot_do_is_refused_before_anything_runs(tiny, said, reason):
    with pytest.raises(RamoleError, match=reason):
        tiny.submit(Request("x", "base", **said), ())


@pytest.mark.parametrize("after", [0, 3])
def test_a_format_that_cannot_go_on_ends_its_request_alone(tiny, monkeypatch, after):
    allowed, left = AnswerFormat.allowed, [after]

    def failing(form, vocabulary):
        left[0] -= 1
        if left[0] < 0:
            raise RamoleError("json_schema cannot be followed (too hard); change it.")
        return allowed(form, vocabulary)

    monkeypatch.setattr(AnswerFormat, "allowed", failing)
    plain = Request("x", "base", max_new_tokens=6, ignore_eos=True)
    wrong, other = tiny.run((Request("x", "base", json_schema=SCHEMA), ()), (plain, ()))
    assert isinstance(wrong.end, RamoleError) and len(wrong.steps) == after
    assert len(other.tokens) == 6
    assert tiny.engine.stats()["kv_bytes"] == 0


def test_a_parser_that_gives_up_says_so(tiny):
    facts = tiny.engine.facts
    request = Request("x", "base", json_schema=SCHEMA)
    form = AnswerFormat(request, tiny.engine.tokenizer, eos=facts.eos, vocabulary=VOCABULARY)
    form.push(65)  # no JSON begins so
    with pytest.raises(RamoleError, match="json_schema cannot be followed"):
        form.allowed(VOCABULARY)


# --- log probabilities of the prompt --------------------------------------------------------------


@pytest.mark.parametrize("chunk", [3, 300])
def test_a_prompt_s_log_probabilities_are_those_of_reading_it_token_by_token(tiny_llama, chunk):
    tiny = TinyEngine(tiny_llama, EngineSizes(prefill_chunk=chunk))
    ids = [65, 70, 1, 2, 250, 70, 70, 9, 30]
    open_end = {"max_new_tokens": 2, "ignore_eos": True}
    asks = {"logprobs": 2, "prompt_logprobs": True}
    request = Request("found by this", "ramole", raw=True, prompt_ids=ids, **asks, **open_end)
    other = replace(request, prompt_ids=ids[:5] * 3, prompt_logprobs=False, trace=False)
    answer(tiny, replace(request, prompt_logprobs=False))  # the cache has the prompt
    contents = (("ant", 2), ("bee", 7))
    beside, heard = tiny.run((other, contents), (request, contents))
    assert beside.answer and heard.answer.prompt_tokens == len(ids)
    first, *rest = heard.answer.prompt_logprobs
    assert (first.token, first.logprob) == (ids[0], None)
    assert [one.token for one in rest] == ids[1:]
    bare = replace(request, prompt_logprobs=False)
    for n in (1, 4, len(rest)):  # the token that follows, alone
        forced = replace(bare, prompt_ids=ids[:n], logit_bias={ids[n]: 1e3}, max_new_tokens=1)
        assert answer(tiny, forced)[0][0].likelihood == rest[n - 1]
    assert [s.likelihood for s in heard.steps] == [s.likelihood for s in answer(tiny, bare)[0]]


# --- what a request refuses -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"top_k": -1}, "top_k=-1; give a whole number of at least 0"),
        ({"top_k": True}, "top_k=True"),
        ({"min_p": 1.5}, "min_p=1.5; give a number"),
        ({"repetition_penalty": 0}, "repetition_penalty=0; give a number"),
        ({"presence_penalty": math.nan}, "presence_penalty=nan"),
        ({"frequency_penalty": "x"}, "frequency_penalty='x'"),
        ({"logit_bias": {"a": 1}}, "logit_bias has 'a': 1; pass a mapping"),
        ({"logit_bias": {1: math.inf}}, "logit_bias has 1: inf"),
        ({"logit_bias": {1: 10**400}}, "logit_bias has 1: 10000"),
        ({"logit_bias": {"1" * 5000: 1}}, "logit_bias has '11111.*…: 1; pass a mapping"),
        ({"logit_bias": [1]}, r"logit_bias=\[1\]; pass a mapping"),
        ({"logprobs": 21}, "logprobs=21; give a whole number"),
        ({"prompt_logprobs": True}, "prompt_logprobs needs logprobs"),
        ({"json_schema": "object"}, "json_schema='object'; pass a JSON schema"),
        ({"json_schema": {"a": {1, 2}}}, "json_schema is not JSON"),
        (
            {"json_schema": {"a": [{"maxItems": 10**6}]}},
            "has maxItems=1000000, and 1000 is the most",
        ),
        ({"json_schema": {"maxItems": 10**400}}, "has maxItems=10000.*…, and 1000 is the most"),
        ({"json_schema": {"maxItems": math.inf}}, "has maxItems=inf, and 1000 is the most"),
        ({"json_schema": {}, "ignore_eos": True}, "ends with the JSON"),
        ({"seed": 1.5}, "seed=1.5"),
        ({"prompt_ids": [1]}, "pass raw=True with them"),
        ({"prompt_ids": [-1], "raw": True}, "prompt_ids has -1"),
        ({"prompt_ids": [10**30], "raw": True}, "prompt_ids has 10000.*; give a list of token ids"),
        ({"prompt": "  "}, "empty"),
        ({"max_new_tokens": 0}, "at least 1"),
        ({"temperature": -1.0}, "temperature=-1"),
        ({"adapters": []}, "empty list"),
        ({"adapters": ["a", "a"]}, "twice"),
        ({"adapters": ["a"], "exclude": ["a"]}, "both adapters and exclude"),
        ({"weights": [1.0]}, "weights needs adapters"),
        ({"adapters": ["a"], "weights": [1.0, 2.0]}, "2 weights for 1 adapters"),
        ({"adapters": ["a"], "weights": [math.inf]}, "finite"),
        ({"messages": [("user",)]}, "Message 1 of messages is"),
        ({"messages": [("user", "a")], "system": "b"}, "whole conversation, but system came"),
    ],
)
def test_what_is_no_request_is_one_sentence(said, reason):
    with pytest.raises(RamoleError, match=reason):
        read_request({"prompt": "a", **said})


def test_a_stop_string_by_itself_is_refused_where_it_is_no_text_of_a_door():
    with pytest.raises(RamoleError, match=r"\['END'\]"):
        Request("a", stop="END")


def test_messages_in_any_order_are_what_the_template_makes_of_them(tiny):
    said = (("assistant", "Hi."), ("user", "a"), ("user", "b"), ("system", "short"))
    read = tiny.engine.read(Request("b", messages=said))
    text = tiny.engine.tokenizer.decode(read.ids)
    assert text == "".join(f"<|im_start|>{role}\n{words}<|im_end|>\n" for role, words in said) + (
        "<|im_start|>assistant\n"
    )
