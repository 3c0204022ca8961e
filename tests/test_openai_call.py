"""What OpenAI's parameters become: a request, or one sentence; and who may call."""

import base64
import inspect
import math
from dataclasses import replace

import numpy as np
import pytest
from openai.resources.chat.completions import Completions

from ramole_core import Generation, RamoleError, Request, Step
from ramole_core.errors import Busy
from tests.fake_ramole import OPTIONS, FakeRamole
from ui.openai.call import IDLE, LABELS, OURS, USED, read_call
from ui.openai.completion import Completion, about
from ui.openai.errors import Refused, refused
from ui.openai.keys import Keys
from ui.openai.messages import read_messages
from ui.openai.models import list_models, read_model

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


def test_every_parameter_of_the_official_client_works_or_is_refused():
    there = set(inspect.signature(Completions.create).parameters) - OWN
    known = {*USED, *IDLE, *LABELS}
    assert len(there & known) > 30
    for newer in there - known:
        with pytest.raises(Refused, match="There is no parameter"):
            call(**{newer: 1})


def test_what_is_said_reaches_the_request():
    said = {"temperature": 0.5, "top_p": 0.9, "seed": 7, "stop": ["a", "b"], "max_tokens": 5}
    asked = call(**said, stream=True, stream_options={"include_usage": True}, user="ada")
    expected = Request(
        "hi",
        method="ramole_plus",
        temperature=0.5,
        top_p=0.9,
        seed=7,
        stop=("a", "b"),
        max_new_tokens=5,
        owner="me",
    )
    assert asked.request == expected and asked.stream and asked.usage
    assert call(stop="x", max_completion_tokens=4).request.stop == ("x",)
    assert call(max_completion_tokens=4, max_tokens=4).request.max_new_tokens == 4


def test_what_openai_has_no_word_for_stands_in_an_object_of_its_own():
    ours = {"k": 2, "exclude": ["ant"], "abstain": False, "drop_turns": True, "effects": True}
    asked = call(model="mixture", ramole={**ours, "options": {"warmth": 1.0}, "weights": None})
    expected = Request(
        "hi",
        method="mixture",
        max_new_tokens=300,
        owner="me",
        **{**ours, "options": {"warmth": 1.0}},
    )
    assert asked.request == expected
    mixed = call(
        model="adapter:bee+adapter:ant", ramole={"method": "fusion", "weights": [0.25, 0.75]}
    ).request
    assert (mixed.method, mixed.adapters) == ("fusion", ("bee", "ant"))
    assert mixed.weights == (0.25, 0.75)


def test_parameters_that_ask_for_nothing_are_taken():
    quiet = {name: fine[0] for name, (fine, _) in IDLE.items() if fine}
    assert len(quiet) > 15 and call(**quiet).request == call().request
    assert call(**dict.fromkeys((*IDLE, *LABELS))).request == call().request


LOUD = {
    "n": 2,
    "frequency_penalty": 0.5,
    "presence_penalty": True,
    "logit_bias": {"3": 1},
    "logprobs": True,
    "top_logprobs": 3,
    "tools": [{"type": "function"}],
    "tool_choice": "required",
    "parallel_tool_calls": 1,
    "functions": [{}],
    "function_call": {"name": "f"},
    "response_format": {"type": "json_object"},
    "modalities": ["text", "audio"],
    "audio": {"voice": "alloy"},
    "prediction": {"type": "content"},
    "web_search_options": {},
    "reasoning_effort": "high",
    "verbosity": "low",
    "service_tier": "priority",
    "store": True,
    "metadata": {"a": "b"},
    "prompt_cache_retention": "24h",
    "prompt_cache_options": {"a": 1},
    "moderation": {"model": "x"},
}


@pytest.mark.parametrize("name", IDLE)
def test_parameters_that_would_not_work_are_refused_by_name(name):
    with pytest.raises(Refused) as told:
        call(**{name: LOUD[name]})
    assert told.value.param == name and name in str(told.value)
    assert str(told.value).count(".") >= 1 and (told.value.status, told.value.code) == (400, None)


@pytest.mark.parametrize(
    ("said", "param", "reason"),
    [
        ({"temperature": -1}, "temperature", "temperature=-1"),
        ({"temperature": True}, "temperature", "should be a number"),
        ({"temperature": math.nan}, "temperature", "finite"),
        ({"top_p": 0}, "top_p", "top_p=0"),
        ({"seed": 1.5}, "seed", "seed=1.5"),
        ({"stop": [""]}, "stop.0", "stop.0=''"),
        ({"stop": 3}, "stop", "stop=3"),
        ({"max_tokens": 0}, "max_tokens", "max_tokens=0: .*greater"),
        ({"max_completion_tokens": "x"}, "max_completion_tokens", "max_completion_tokens='x'"),
        ({"max_tokens": 301}, "max_tokens", "gives at most 300 tokens"),
        ({"max_tokens": 3, "max_completion_tokens": 4}, "max_tokens", "different lengths"),
        ({"stream": "yes"}, "stream", "stream='yes'; give true or false"),
        ({"stream_options": {}}, "stream_options", "needs stream=true"),
        ({"stream": True, "stream_options": {"a": 1}}, "stream_options", "include_usage"),
        (
            {"stream": True, "stream_options": {"include_obfuscation": True}},
            "stream_options",
            "include_usage",
        ),
        ({"user": 3}, "user", "user=3; give a text"),
        ({"top_k": 3}, "top_k", "no parameter 'top_k'"),
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
        {"role": "user", "content": "d", "name": None},
        {"role": "assistant", "content": "", "annotations": []},
        {"role": "user", "content": "é\n"},
    ]
    talk = read_messages(said)
    assert (talk.system, talk.prompt) == ("Be brief.", "é\n")
    assert talk.history == [["a\nb", "c", ["ant"]], ["d", ""]]
    asked = call(messages=said).request
    assert asked.history == (("a\nb", "c", ("ant",)), ("d", "", None))
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
        ([message("tool")], "Message 0 has role 'tool'"),
        ([message(content=None)], "Message 0 has content None; give a text"),
        ([message(content=[{"type": "image_url"}])], "Message 0 has a part that is no text"),
        ([message(name="ada")], "Message 0 has 'name', which is not used"),
        ([message("assistant")], "Message 0 is the assistant's out of turn"),
        ([message("system")], "The last message is not the user's"),
        ([message(), message("assistant")], "The last message is not the user's"),
        ([message(), message()], "Message 1 is the user's out of turn"),
        ([message("system"), message("system")], "Message 1 is the system's out of turn"),
        ([message(), message("system")], "Message 1 is the system's out of turn"),
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
    names = [one["id"] for one in list_models(ramole, None)]
    assert {"base", "adapter:base", "ramole_plus", "adapter:ant"} <= set(names)
    assert len(set(names)) == len(names) and all(read_model(n, ramole, None) for n in names)


@pytest.mark.parametrize("name", ["", "gpt-4o", "adapter:", "adapter:x", "adapter:ant+bee", "ant"])
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
    told = about(answer, Request("hi", method="mixture"), [first, second])
    assert told["adapters"] == [
        {"name": "a", "score": 0.5, "weight": 0.375, "share": 0.375},
        {"name": "b", "score": None, "weight": 0.75, "share": 0.625},
    ]
    assert told["method"] == "mixture" and told["token_ids"] == [4, 4]
    untraced = Generation("x", ["a"], [0.5], None, "stop", 7, 1, 0.5, 0.25)
    bare = about(untraced, Request("hi"), [Step(4, "x", None)])
    assert bare["adapters"] == [{"name": "a", "score": 0.5, "weight": None, "share": None}]


def test_effects_stand_in_the_object_that_openai_has_no_word_for():
    answer = Generation("x", ["a", "b"], [0.5, 0.25], None, "eos", 7, 1, 0.5, 0.25)
    base, effects = np.float32([-2.0]), np.float32([[1.5, -0.25]])
    answer = replace(answer, effects=effects, base_logprob=base, logprob=base + effects.sum(-1))
    told = about(answer, Request("hi", effects=True), [])
    assert told["effects"] == [[1.5, -0.25]] and told["effects_by"] == "shapley"
    assert (told["base_logprob"], told["logprob"]) == ([-2.0], [-0.75])


@pytest.mark.parametrize(
    ("reason", "told"), [("eos", "stop"), ("stop", "stop"), ("length", "length")]
)
def test_how_an_answer_ended_is_told_in_openai_s_words(reason, told):
    answer = Generation("x", [], [], None, reason, 7, 3, 0.5, 0.25)
    whole = Completion("base").whole(answer, Request("hi"), [])
    assert whole["choices"][0]["finish_reason"] == told
    assert whole["usage"] == {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    assert Completion("base").end(answer, Request("hi"), [])["choices"][0]["finish_reason"] == told


def test_errors_have_the_status_and_the_form_of_openai(caplog):
    busy = refused(Busy("Too many wait."))
    assert (busy.status, busy.retry_after) == (429, 2)
    assert busy.body["error"] == {
        "message": "Too many wait.",
        "type": "rate_limit_error",
        "param": None,
        "code": "busy",
    }
    assert busy.response.headers["retry-after"] == "2"
    assert refused(RamoleError("No.")).status == 400
    unseen = refused(ZeroDivisionError("secret"))
    assert unseen.status == 500 and "secret" not in str(unseen) and "secret" in caplog.text
    odd = Refused("x\ud83d", param="p" * 900).response.body
    assert b"\\ud83d" in odd and len(odd) < 400


# Keys


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


def test_a_key_is_a_user_with_its_password_as_bearer_or_basic():
    keys = Keys([("ann", "se:cret"), ("zoë", "ü")])
    for fine in ("Bearer ann:se:cret", "bearer  ann:se:cret", basic("ann:se:cret"), basic("zoë:ü")):
        keys.check(fine, "")
    keys.check("Bearer zoë:ü".encode().decode("latin-1"), "")  # as it comes over the wire
    for wrong in (
        None,
        "",
        "Bearer",
        "Bearer ann",
        "Bearer ann:",
        basic("ann:x"),
        "Basic %%%",
        "Digest ann:se:cret",
        "Bearer \u20ac",
        basic(""),
    ):
        with pytest.raises(Refused, match="asks for a password") as told:
            keys.check(wrong, "")
        assert told.value.status == 401
        assert told.value.response.headers["www-authenticate"] == "Bearer"


def test_wrong_keys_are_counted_by_address_and_none_is_no_try():
    class Counted:
        def __init__(self):
            self.said: list[tuple[str, str]] = []

        def begin(self, address: str) -> float:
            if len(self.said) > 3:
                raise Refused("Too many.", status=429)
            self.said.append(("begin", address))
            return 7.5

        def right(self, address: str, begun: float) -> None:
            assert begun == 7.5, "its own try"
            self.said.append(("right", address))

    tries = Counted()
    keys = Keys([("ann", "secret")], tries)
    for wrong in (None, "Bearer ann:x"):
        with pytest.raises(Refused, match="asks for a password"):
            keys.check(wrong, "10.0.0.9")
    assert tries.said == [("begin", "10.0.0.9")]
    keys.check("Bearer ann:secret", "10.0.0.8")
    assert tries.said[1:] == [("begin", "10.0.0.8"), ("right", "10.0.0.8")]
    tries.said *= 2
    with pytest.raises(Refused, match="Too many"):
        keys.check("Bearer ann:secret", "10.0.0.9")


def test_without_passwords_any_key_will_do():
    for anything in (None, "Bearer none", "Basic %%%"):
        Keys(None).check(anything, "")
