"""What OpenAI's parameters become: a request, or one sentence; and who may call."""

import inspect
import json
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from openai.resources.chat.completions import Completions

from ramole_core import Generation, RamoleError, Request, Step, TokenLogprob
from ramole_core.errors import Busy
from tests.support import asgi
from tests.support.fake_ramole import OPTIONS, FakeRamole
from ui.middleware import refusal
from ui.openai.call import read_call, read_prompts
from ui.openai.completion import Answered, Completion, TextCompletion, about, chat_logprobs
from ui.openai.door import _Grown
from ui.openai.embeddings import embed, read_texts
from ui.openai.errors import Refused, refused
from ui.openai.messages import read_messages
from ui.openai.models import list_models, read_model
from ui.openai.parameters import LABELS, OURS, WRONG, Call

HI = [{"role": "user", "content": "hi"}]
OWN = {"extra_headers", "extra_query", "extra_body", "timeout", "self"}
"""Of the client itself, never sent."""


def call(**said):
    body = {"model": "ramole_plus", "messages": HI, **said}
    return read_call(body, FakeRamole(options=OPTIONS), "me")


def test_a_bare_call_is_a_request_of_its_method_with_the_longest_answer():
    asked = call()
    assert asked.request == Request("hi", method="ramole_plus", max_new_tokens=300, owner="me")
    assert (asked.model, asked.stream, asked.usage) == ("ramole_plus", False, False)
    streamed = call(stream=True, stream_options={"include_usage": True}, user="ada")
    assert streamed.stream and streamed.usage and streamed.request == asked.request


def test_every_parameter_of_the_official_client_is_taken_or_refused_by_name():
    there = set(inspect.signature(Completions.create).parameters) - OWN - {"model", "messages"}
    taken, refused = set(), set()
    for name in there:
        try:
            taken |= set(call(**{name: {"odd": 1}}).ignored)
        except Refused as told:
            assert (told.param, told.status, told.code) == (name, 400, None) and name in str(told)
            refused.add(name)
    assert {*WRONG, "response_format", "n"} - {"suffix"} <= refused
    assert {"verbosity", "prediction", "store", "service_tier"} <= taken
    assert taken | refused | {*LABELS, "logit_bias"} >= there


SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
NAMED = {"name": "a", "schema": SCHEMA, "strict": True}
CONTROLS = {
    "temperature": 0.5,
    "top_p": 0.9,
    "top_k": 40,
    "min_p": 0.05,
    "repetition_penalty": 1.1,
    "presence_penalty": -0.5,
    "frequency_penalty": 2,
}
OWN_WORDS = {"k": 2, "exclude": ["ant"], "abstain": False, "drop_turns": True, "effects": True}
WARM = {"method": "mixture", "options": {"warmth": 1.0}}
MIXED = {"method": "fusion", "weights": (0.25, 0.75)}


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        (CONTROLS, CONTROLS),
        ({"stop": ["a", "b"], "max_tokens": 5}, {"stop": ("a", "b"), "max_new_tokens": 5}),
        ({"stop": "x", "max_completion_tokens": 4}, {"stop": ("x",), "max_new_tokens": 4}),
        ({"max_completion_tokens": 4, "max_tokens": 4}, {"max_new_tokens": 4}),
        ({"max_tokens": 4096}, {}),
        ({"max_completion_tokens": 4096}, {}),
        ({"seed": 7}, {"seed": 7}),
        ({"seed": -1}, {}),  # a new one
        ({"seed": -2}, {"seed": 2**63 - 2}),
        ({"seed": 2**63 - 1}, {"seed": 2**63 - 1}),
        ({"logit_bias": {"7": -100}}, {"logit_bias": {7: -100.0}}),
        ({"logprobs": True, "top_logprobs": 5}, {"logprobs": 5}),
        (
            {"response_format": {"type": "json_schema", "json_schema": NAMED}},
            {"json_schema": SCHEMA},
        ),
        ({"response_format": {"type": "json_object"}}, {"json_schema": {"type": "object"}}),
        ({"ramole": {**OWN_WORDS, "weights": None}}, OWN_WORDS),
        ({"model": "mixture", "ramole": {"options": {"warmth": 1.0}}}, WARM),
        (
            {"model": "adapter:bee+adapter:ant", "ramole": MIXED},
            {**MIXED, "adapters": ("bee", "ant")},
        ),
    ],
)
def test_what_is_said_reaches_the_request(said, wanted):
    bare = {"method": "ramole_plus", "max_new_tokens": 300, "owner": "me"}
    assert call(**said).request == Request("hi", **{**bare, **wanted})


def test_what_asks_for_nothing_changes_nothing_and_what_is_ignored_is_said():
    quiet = {name: fine[0] for name, (fine, _) in WRONG.items() if fine}
    quiet |= {"n": 1, "logprobs": False, "response_format": {"type": "text"}, "logit_bias": {}}
    assert call(**quiet) == call()
    assert call(**dict.fromkeys((*WRONG, *LABELS, "n", "seed"))) == call()
    odd = call(metadata={"a": "b"}, user="ada", reasoning_effort="high", mirostat=2, store=True)
    assert odd.request == call().request
    assert odd.ignored == ("reasoning_effort", "mirostat", "store")


def test_several_answers_are_requests_with_seeds_of_their_own():
    drawn = call(n=3, seed=2**63 - 1, temperature=1)
    assert [one.seed for one in drawn.requests] == [2**63 - 1, 0, 1] and drawn.n == 3
    assert [one.seed for one in call(n=2).requests] == [None, None]


@pytest.mark.parametrize(
    ("said", "param", "reason"),
    [
        ({"temperature": -1}, "temperature", "temperature=-1"),
        ({"stop": [""]}, "stop.0", "stop.0=''"),
        ({"max_tokens": 0}, "max_tokens", "max_tokens=0; .*at least 1"),
        ({"max_completion_tokens": "x"}, "max_completion_tokens", "max_completion_tokens='x'"),
        ({"temperature": 5}, "temperature", "temperature=5; give a number from 0 to 2"),
        ({"frequency_penalty": 2.5}, "frequency_penalty", "from -2 to 2"),
        ({"stop": list("abcde")}, "stop", "stop has 5 strings, and 4 is the most"),
        ({"seed": 2**70}, "seed", f"seed={2**70}"),
        ({"n": 17}, "n", "n=17; give a whole number from 1 to 16"),
        ({"n": True}, "n", "n=true"),
        ({"top_k": -5}, "top_k", "top_k=-5; give a whole number"),
        ({"logit_bias": {"x": 1}}, "logit_bias", "logit_bias has .x."),
        ({"logit_bias": {"7": 101}}, "logit_bias", "logit_bias has 101; give numbers from -100"),
        ({"logprobs": 3}, "logprobs", "logprobs=3; give true or false"),
        ({"top_logprobs": 3}, "top_logprobs", "needs logprobs=true"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "from 0 to 20"),
        ({"response_format": {"type": "xml"}}, "response_format", "its type is text, json_obj"),
        ({"response_format": {"type": "json_schema"}}, "response_format", "json_schema.schema"),
        ({"max_tokens": 3, "max_completion_tokens": 4}, "max_tokens", "different lengths"),
        ({"stream": "yes"}, "stream", "stream='yes'; give true or false"),
        ({"stream_options": {}}, "stream_options", "needs stream=true"),
        ({"stream": True, "stream_options": 1}, "stream_options", "include_usage"),
        ({"ramole": []}, "ramole", "give an object of k, exclude"),
        ({"ramole": {"owner": "x"}}, "ramole", "give an object of k, exclude"),
        ({"ramole": {"k": 0}}, "ramole.k", "ramole.k=0"),
        ({"ramole": {"method": "base"}}, "ramole.method", "the model is a method already"),
        ({"model": None}, "model", "No model is named"),
        ({"model": 3}, "model", "No model is named"),
        ({"messages": None}, "messages", "messages=None; give a list"),
    ],
)
def test_what_cannot_be_done_is_one_sentence_that_names_its_parameter(said, param, reason):
    with pytest.raises(Refused, match=reason) as told:
        call(**said)
    assert told.value.param == param and told.value.status == 400


def test_contradictions_are_told_in_the_request_s_own_words():
    with pytest.raises(RamoleError, match="weights needs adapters"):
        call(ramole={"weights": [1.0]})
    with pytest.raises(RamoleError, match="has no option 'cold'"):
        call(model="mixture", ramole={"options": {"cold": 1}})
    with pytest.raises(Refused, match="no JSON object"):
        read_call([], FakeRamole(), None)
    assert {"k", "method"} <= set(OURS)


# Messages


def test_messages_become_a_system_prompt_earlier_turns_and_the_prompt():
    said = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": "c", "ramole": {"adapters": ["ant"]}, "tool_calls": None},
        {"role": "user", "content": "d", "name": "ada"},
        {"role": "assistant", "content": "", "annotations": [], "reasoning_content": ""},
        {"role": "user", "content": "é\n"},
    ]
    talk = read_messages(said)
    assert (talk.system, talk.prompt) == ("Be brief.", "é\n")
    assert talk.history == [["a\nb", "c", ["ant"]], ["d", ""]]
    assert (talk.messages, talk.ignored) == ((), ())
    asked = call(messages=said).request
    assert asked.history == (("a\nb", "c", ("ant",)), ("d", "", None))
    for content, system in (("", ""), (None, None)):
        talk = [{"role": "system", "content": content}] if content is not None else []
        assert call(messages=[*talk, *HI]).request.system == system
    bare = call(model="base", messages=said).request
    assert [turn.adapters for turn in bare.history] == [None, None]


def message(role="user", content="x", **more):
    return {"role": role, "content": content, **more}


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ([], "messages=.*give a list of objects"),
        ("hi", "messages='hi'; give a list"),
        (["hi"], "Message 0 is 'hi'; give an object"),
        ([{"content": "hi"}], "Message 0 has role None; give system, user or assistant"),
        ([message("tool")], "Message 0 is a tool's, but the model calls no tools"),
        ([message(content="x" * 70_000)] * 2, "messages have 140000 characters"),
        ([message(content=None)], "Message 0 has content None; give a text"),
        ([message(content=[{"type": "image_url"}])], "Message 0 has a part that is no text"),
        ([message(ramole={"adapters": []})], "Message 0 has ramole="),
        ([message(), message("assistant", ramole=3), message()], "Message 1 has ramole=3"),
        ([message(content="\ud83d")], "Message 0 has half a character"),
        ([message(tool_calls=[{}])], "Message 0 has 'tool_calls'"),
    ],
)
def test_messages_that_are_no_conversation_are_refused(said, reason):
    with pytest.raises(Refused, match=reason) as told:
        read_messages(said)
    assert told.value.param == "messages"


ROLES = {"s": "system", "u": "user", "a": "assistant"}


@pytest.mark.parametrize("order", ["uu", "a", "s", "ua", "ssu", "uasu", "sauu", "usau"])
def test_messages_in_any_order_are_as_the_template_has_them(order):
    said = [message(ROLES[role], f"text {n}") for n, role in enumerate(order)]
    asked = call(messages=said).request
    assert asked.messages == tuple((one["role"], one["content"]) for one in said)
    last = max((n for n, role in enumerate(order) if role == "u"), default=len(order) - 1)
    assert (asked.prompt, asked.history, asked.system) == (f"text {last}", (), None)


def test_fields_of_messages_that_change_nothing_are_ignored_and_named():
    answer = message("assistant", ramole={"adapters": ["red"]})
    for said, ignored in (
        (
            [message(), message("assistant", reasoning_content="hm", refusal=None), message()],
            ("messages.reasoning_content",),
        ),
        ([message(), answer, message()], ()),
        ([answer, message()], ("messages.ramole",)),  # of no turn
    ):
        assert call(messages=said).ignored == ignored
    half = call(**{"a\ud800": 1, "messages": [message(**{"b\ud800": 1})]})
    assert half.ignored == ("a?", "messages.b?")


@pytest.mark.parametrize("content", ["x" * 100_001, " "])
def test_a_prompt_that_is_too_long_or_empty_is_refused(content):
    with pytest.raises((Refused, RamoleError), match="at most 100000|prompt is empty"):
        call(messages=[message(content=content)])


# Models


def test_a_model_is_a_method_or_adapters_even_one_called_like_a_method():
    ramole = FakeRamole()
    ramole.pool.names.append("base")
    assert read_model("base", ramole, None).adapters is None
    own = read_model("adapter:base", ramole, None)
    assert (own.method, own.adapters) == ("selection", ["base"])
    two = read_model("adapter:ant+adapter:base", ramole, None)
    assert (two.method, two.adapters) == ("ramole_plus", ["ant", "base"])
    names = [one["id"] for one in list_models(ramole, None) if one["id"] != "retriever"]
    assert {"base", "adapter:base", "ramole_plus", "adapter:ant"} <= set(names)
    assert len(set(names)) == len(names) and all(read_model(n, ramole, None) for n in names)


@pytest.mark.parametrize(
    "name", ["", "gpt-4o", "retriever", "adapter:", "adapter:x", "adapter:ant+bee", "ant"]
)
def test_a_model_that_is_not_there_is_404(name):
    with pytest.raises(Refused) as told:
        read_model(name, FakeRamole(), None)
    assert (told.value.status, told.value.code) == (404, "model_not_found")
    assert told.value.param == "model"


# Answers


def step(weights, present, contribution):
    shaped = [np.array(x, np.float16)[:, None] for x in (weights, contribution)]
    there = np.array(present, np.bool_)[:, None]
    return Step(4, "x", shaped[0], ("a", "b"), (0.5, 0.25), shaped[1], there)


def test_an_adapter_s_weight_is_its_mean_where_it_is_and_its_share_what_came_of_it():
    first = step([[1, 0], [0.5, 0.5]], [[1, 0], [1, 1]], [[0.2, 0], [0.1, 0.1]])
    second = step([[0, 0], [0, 1]], [[1, 0], [1, 1]], [[0, 0], [0, 0.5]])
    answer = Generation("xx", ["a", "b"], [0.5, math.nan], None, "eos", 7, 2, 0.5, 0.25)
    told = about(Answered(answer, Request("hi", method="mixture"), [first, second]))
    assert told["adapters"] == [
        {"name": "a", "score": 0.5, "weight": 0.375, "share": 0.375},
        {"name": "b", "score": None, "weight": 0.75, "share": 0.625},
    ]
    assert told["method"] == "mixture" and told["token_ids"] == [4, 4]
    untraced = Generation("x", ["a"], [0.5], None, "stop", 7, 1, 0.5, 0.25)
    bare = about(Answered(untraced, Request("hi"), [Step(4, "x", None)]))
    assert bare["adapters"] == [{"name": "a", "score": 0.5, "weight": None, "share": None}]


def test_effects_stand_in_the_object_that_openai_has_no_word_for():
    answer = Generation("x", ["a", "b"], [0.5, 0.25], None, "eos", 7, 1, 0.5, 0.25)
    base, effects = np.float32([-2.0]), np.float32([[1.5, -0.25]])
    answer = replace(answer, effects=effects, base_logprob=base, logprob=base + effects.sum(-1))
    told = about(Answered(answer, Request("hi", effects=True), []))
    assert told["effects"] == [[1.5, -0.25]] and told["effects_by"] == "shapley"
    assert (told["base_logprob"], told["logprob"]) == ([-2.0], [-0.75])


@pytest.mark.parametrize(
    ("reason", "told"), [("eos", "stop"), ("stop", "stop"), ("length", "length")]
)
def test_how_an_answer_ended_is_told_in_openai_s_words_with_what_was_ignored(reason, told):
    answer = Generation("x", [], [], None, reason, 7, 3, 0.5, 0.25)
    one = Answered(answer, Request("hi"), [])
    frame = Completion(call(mirostat=2), FakeRamole().spell)
    whole, end = frame.whole([one]), frame.end(0, one)
    assert whole["usage"] == {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    for said in (whole, end):
        assert said["choices"][0]["finish_reason"] == told
        assert said["ramole"]["ignored"] == ["mirostat"]


def test_a_prompt_of_several_answers_counts_once():
    answers = [
        Answered(Generation("x", [], [], None, "eos", 7, n, 0.5, 0.25), Request("hi"), [])
        for n in (1, 2, 3, 4)
    ]
    frame = Completion(Call(tuple(one.request for one in answers), "base", False, False, 2), list)
    assert frame.whole(answers)["usage"]["prompt_tokens"] == 14
    assert frame.count(answers)["usage"]["completion_tokens"] == 10
    assert [choice["index"] for choice in frame.whole(answers)["choices"]] == [0, 1, 2, 3]


def test_log_probabilities_have_a_text_or_none_and_never_infinity():
    texts = {1: "é", 2: "\ufffd"}
    steps = [
        Step(1, "é", None, likelihood=TokenLogprob(1, -0.5, ((1, -0.5), (2, -math.inf)))),
        Step(9, "", None),
    ]
    told = chat_logprobs(steps, lambda ids: [texts[token] for token in ids])
    (one,) = told["content"]
    assert (one["token"], one["bytes"]) == ("é", [195, 169])
    assert one["top_logprobs"][1] == {"token": "\ufffd", "logprob": -9999.0, "bytes": None}
    assert chat_logprobs(steps[1:], list) is None


@pytest.mark.parametrize(("wanted", "told"), [(None, None), (0, []), (3, [])])
def test_an_answer_without_text_has_an_empty_list_of_log_probabilities(wanted, told):
    end = Step(9, "", None, likelihood=TokenLogprob(9, -0.5, ()))
    answer = Generation("", [], [], None, "eos", 7, 1, 0.5, 0.25)
    one = Answered(answer, Request("hi", logprobs=wanted), [end] if wanted is not None else [])
    (choice,) = Completion(call(), list).whole([one])["choices"]
    assert choice["logprobs"] == (told if told is None else {"content": told, "refusal": None})


# Texts that are continued


def text_call(**said) -> Call:
    return read_prompts({"model": "base", "prompt": "hi", **said}, FakeRamole(), "me")


def test_a_text_is_continued_as_it_is():
    bare = text_call()
    wanted = Request("hi", method="base", raw=True, max_new_tokens=16, owner="me")
    assert bare.request == wanted and not (bare.echo or bare.bare)
    tokens = text_call(prompt=[3, 4], max_tokens=4096, echo=True, logprobs=0)
    assert tokens.request.prompt_ids == (3, 4) and tokens.request.prompt == "${here}\n"
    assert tokens.request.prompt_logprobs and tokens.request.max_new_tokens == 300
    several = text_call(prompt=["a", "b"], n=2, seed=5)
    assert [one.prompt for one in several.requests] == ["a", "a", "b", "b"]
    assert [one.seed for one in several.requests] == [5, 6, 5, 6] and several.n == 2
    assert [one.prompt_ids for one in text_call(prompt=[[1], [2, 3]]).requests] == [(1,), (2, 3)]


def test_a_text_s_answer_has_the_prompt_before_it_with_all_log_probabilities():
    told = text_call(prompt=[3, 4], max_tokens=2, echo=True, logprobs=2)
    ramole = FakeRamole()
    items = [item for _, item in ramole.stream_batch(told.requests)]
    one = Answered(items[-1], told.request, items[:-1])
    choice = TextCompletion(told, ramole.spell).whole([one])["choices"][0]
    assert choice["text"] == "${here}\nThe boats " and choice["finish_reason"] == "stop"
    found = choice["logprobs"]
    assert found["tokens"] == ["${here}", "\n", "The ", "boats "]
    assert found["token_logprobs"] == [None, -0.5, -0.5, -0.5]
    assert found["text_offset"] == [0, 7, 8, 12] and found["top_logprobs"][0] is None
    assert found["top_logprobs"][2] == {"The ": -0.5, "boats ": -1.5}
    prompt_alone = text_call(prompt=[3, 4], max_tokens=0, echo=True, logprobs=2)
    assert prompt_alone.bare and prompt_alone.request.max_new_tokens == 1
    whole = TextCompletion(prompt_alone, ramole.spell).whole([one])
    bare, usage = whole["choices"][0], whole["usage"]
    assert usage["completion_tokens"] == 0 and usage["total_tokens"] == usage["prompt_tokens"]
    assert bare["text"] == "${here}\n" and bare["logprobs"]["tokens"] == ["${here}", "\n"]


def test_the_parts_of_a_stream_count_a_token_s_place_from_the_answer_s_beginning():
    told = text_call(prompt=["a", "b"], max_tokens=5, logprobs=0, stream=True)
    ramole = FakeRamole()
    frame, seen = TextCompletion(told, ramole.spell), {0: [], 1: []}
    found = {n: [item for at, item in ramole.stream_batch(told.requests) if at == n] for n in seen}
    for start, end in ((0, 2), (2, 3), (3, 5)):
        for n, (*steps, _) in found.items():
            part = steps[start:end]
            (choice,) = frame.chunk(n, "".join(one.text for one in part), part)["choices"]
            seen[n] += choice["logprobs"]["text_offset"]
    answers = [Answered(items[-1], Request("a"), items[:-1]) for items in found.values()]
    whole = [one["logprobs"]["text_offset"] for one in frame.whole(answers)["choices"]]
    assert list(seen.values()) == whole == [[0, 4, 10, 21, 28]] * 2


@pytest.mark.parametrize("cuts", [(1, 4), (2, 4), (3, 4), (1, 2, 3, 4), (4,)])
def test_parts_have_the_log_probabilities_of_the_whole_behind_a_stop_string_too(cuts):
    """Of `The boats .EN`, stopped by ` .EN`: its last two tokens have no text."""
    texts = {1: "The", 2: " boats", 3: " .", 4: "EN"}
    steps = [
        Step(token, texts[token] if token < 3 else "", None, likelihood=TokenLogprob(token, -0.5))
        for token in texts
    ]
    told = Generation("The boats", [], [], None, "stop", 7, 4, 0.5, 0.2)
    one = Answered(told, Request("a"), steps)
    for frame, read in (
        (Completion(call(), lambda ids: [texts[n] for n in ids]), _of_chat),
        (TextCompletion(text_call(), lambda ids: [texts[n] for n in ids]), _of_text),
    ):
        running = SimpleNamespace(steps=[[]])
        grown, parts = _Grown(running, 0), []
        for end in cuts:
            running.steps[0] = steps[:end]
            text, new = grown.take()
            parts += read(frame.chunk(0, text, new)["choices"][0]) if text else []
        parts += read(frame.end(0, one, grown.waiting)["choices"][0])
        assert parts == read(frame.whole([one])["choices"][0])
        assert [part[0] for part in parts][:2] == ["The", " boats"]


def _of_chat(choice) -> list[tuple]:
    found = choice["logprobs"] or {"content": []}
    return [(one["token"], one["logprob"]) for one in found["content"]]


def _of_text(choice) -> list[tuple]:
    found = choice["logprobs"]
    keys = ("tokens", "token_logprobs", "text_offset")
    return list(zip(*(found[key] for key in keys), strict=True)) if found else []


@pytest.mark.parametrize(
    ("said", "param", "reason"),
    [
        ({"prompt": None}, "prompt", "prompt=None; give a text"),
        ({"prompt": [[]]}, "prompt", "give a text, a list of texts"),
        ({"prompt": [1, True]}, "prompt", "give a text"),
        ({"prompt": [3, 5000]}, "prompt", "has token 5000, but the base .* are 0 to 4999; give"),
        ({"prompt": [[3], [10**30, 4]]}, "prompt", "has token 10{30}, but the base model's tokens"),
        ({"prompt": ["a"] * 9, "n": 9}, "prompt", "more than 64 answers"),
        ({"max_tokens": 0}, "max_tokens", "max_tokens=0"),
        ({"logprobs": 21}, "logprobs", "from 0 to 20"),
        ({"best_of": 3}, "best_of", "best_of is not n"),
        ({"suffix": "x"}, "suffix", "fills none in"),
        ({"echo": 1}, "echo", "give true or false"),
        ({"echo": True, "logprobs": 1, "stream": True}, "stream", "comes whole"),
    ],
)
def test_a_text_that_cannot_be_continued_is_one_sentence(said, param, reason):
    with pytest.raises(Refused, match=reason) as told:
        text_call(**said)
    assert told.value.param == param


# Vectors


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"model": "ada"}, "no model 'ada' that embeds; name retriever"),
        ({"input": [1, 2]}, "not tokens"),
        ({"input": []}, "give a text or a list"),
        ({"input": ["x"] * 257}, "at most 256"),
        ({"input": " "}, "an empty text"),
        ({"input": ["whole \U0001f600", "\ud83d"]}, "half a character"),
        ({"encoding_format": "hex"}, "float or base64"),
        ({"dimensions": 4}, "dimensions=4, but this encoder's vectors have 3"),
    ],
)
def test_texts_that_cannot_be_embedded_are_one_sentence(said, reason):
    with pytest.raises(Refused, match=reason):
        embed(read_texts({"model": "retriever", "input": "hi", **said}), FakeRamole())


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (413, "invalid_request_error"),
        (429, "rate_limit_error"),
        (500, "server_error"),
        (503, "server_error"),
    ],
)
def test_a_refusal_before_the_door_has_the_type_that_the_door_gives_its_status(status, kind):
    async def refuse(scope, receive, send):
        await refusal.Refused(status, "No.").respond(scope, receive, send, whole=True)

    sent = asgi.told(refuse, "/v1/chat/completions")
    assert json.loads(sent[1]["body"])["error"]["type"] == kind
    assert Refused("No.", status=status).body["error"]["type"] == kind


def test_errors_have_the_status_and_the_form_of_openai(caplog):
    busy = refused(Busy("Too many wait."))
    assert (busy.status, busy.retry) == (429, 2)
    said = {"message": "Too many wait.", "type": "rate_limit_error", "param": None, "code": "busy"}
    assert busy.body["error"] == said
    assert busy.response.headers["retry-after"] == "2"
    assert refused(RamoleError("No.")).status == 400
    unseen = refused(ZeroDivisionError("secret"))
    assert unseen.status == 500 and "secret" not in str(unseen) and "secret" in caplog.text
    odd = Refused("x\ud83d", param="p" * 900).response.body
    assert b"\\ud83d" in odd and len(odd) < 400
