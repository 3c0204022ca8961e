"""Laws over every field of a request: said once, read alike by every door."""

import inspect
import json
import math

import numpy as np
import pytest
import typer

from ramole_core import Ramole, RamoleError, Request, WrongField, read_request
from ramole_core.batch.formats import JSON_ALONE
from ramole_core.batch.prompt_file import read_batch
from ramole_core.cli import app
from ramole_core.request import DEFAULTS, FIELDS
from tests.core.test_request_parts import refusal_of
from tests.support.fake_ramole import FakeRamole
from ui.api.asking import FIRST, ask_endpoint

TEXTS = {
    "prompt": "hello",
    "method": "mixture",
    "k": "2",
    "adapters": "ant|bee",
    "weights": "0.5 -1",
    "exclude": "cat",
    "max_new_tokens": "7",
    "temperature": "0.5",
    "top_p": "0.25",
    "seed": "-3",
    "stop": "a\\nb",
    "ignore_eos": "yes",
    "system": " Be brief. ",
    "raw": "true",
    "options": '{"top": 2, "flat": true}',
    "history": '[["a", "b"]]',
    "prefix_ids": "[1, 2]",
    "without": "[[null, 3, null]]",
    "later_weights": '{"ant": 0.5}',
    "split": "false",
    "abstain": "false",
    "drop_turns": "true",
    "examples": '[["a", "b"]]',
    "mix": " spam ",
    "top_k": "5",
    "min_p": "0.125",
    "repetition_penalty": "1.5",
    "presence_penalty": "0.5",
    "frequency_penalty": "0.5",
    "logit_bias": '{"3": 1.5}',
    "json_schema": '{"type": "object"}',
    "logprobs": "2",
    "prompt_logprobs": "true",
    "prompt_ids": "[1, 2]",
    "messages": '[["user", "hi"]]',
    "effects": "true",
}
"""A text of each, as a cell of a table has it; a new field has one here."""
VALUES = {
    "k": 2,
    "adapters": ("ant", "bee"),
    "weights": (0.5, -1.0),
    "seed": -3,
    "stop": ("a\nb",),
    "raw": True,
    "options": {"top": 2, "flat": True},
    "abstain": False,
    "later_weights": {"ant": 0.5},
    "mix": "spam",
}
NEEDS = {
    "weights": {"adapters": ["x", "y"]},
    "prompt_ids": {"raw": True},
    "prompt_logprobs": {"logprobs": 2},
}


@pytest.mark.parametrize("name", FIELDS)
def test_a_field_is_read_alike_by_every_door(name: str):
    takes, text = FIELDS[name], TEXTS[name]
    value = takes.read(name, takes.parse(name, text))
    assert name not in VALUES or value == VALUES[name]
    assert takes.read(name, value) == value, "what was read is read again as it is"
    assert takes.help.endswith(".")
    said = {"prompt": "x", **NEEDS.get(name, {}), name: text}
    request = read_request(said)
    assert getattr(request, name) == value != DEFAULTS[name]
    (row,) = read_batch(json.dumps({"prompt": "x", **NEEDS.get(name, {}), name: value})).rows
    assert getattr(row.request, name) == value
    if name not in JSON_ALONE and name not in ("options", "stop", "system", "prompt"):
        row = read_batch(",".join(said) + "\n" + ",".join(map(_cell, said.values()))).rows[0]
        assert getattr(row.request, name) == value


@pytest.mark.parametrize("name", FIELDS)
def test_every_door_has_every_field(name: str):
    command = typer.main.get_command(app).commands["generate"]  # pyright: ignore[reportAttributeAccessIssue]
    words = {word for one in command.params for word in one.opts}
    option = "--" + (FIELDS[name].option or name).replace("_", "-")
    assert (option in words) == (FIELDS[name].option != "")
    asked = inspect.signature(ask_endpoint(lambda said, request: iter(()), FakeRamole()))  # pyright: ignore[reportArgumentType]
    assert name in asked.parameters and tuple(asked.parameters)[: len(FIRST)] == FIRST


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ({"k": 0}, "k=0; give a whole number of at least 1."),
        ({"k": 2.5}, "k=2.5; give a whole number."),
        ({"k": True}, "k=True; give a whole number."),
        ({"seed": "a"}, "seed='a'; give a whole number."),
        ({"seed": 2**70}, "seed=1180591620717411303424; give a whole number of 64 bits."),
        ({"temperature": math.nan}, "temperature=nan; give a number of at least 0, a finite one."),
        ({"temperature": 10**400}, "give a number of at least 0, a finite one."),
        ({"top_p": 0}, "top_p=0; give a number above 0 and at most 1."),
        ({"exclude": 3}, "exclude=3; give a list."),
        ({"stop": ["a", ""]}, "stop.1='' is empty; leave it out."),
        ({"stop": [{"a": 1}]}, "stop.0="),
        ({"prompt": 3}, "prompt=3; give a text."),
        ({"raw": "perhaps"}, "raw='perhaps'; give true or false."),
        ({"drop_turns": 1}, "drop_turns=1; give true or false."),
        ({"adapters": {"squad": 1}}, "adapters={'squad': 1}; give a list."),
        ({"options": {"a": "b"}}, 'give an object, such as {"top": 2}.'),
        ({"options": {"a": 10**400}}, 'give an object, such as {"top": 2}.'),
        ({"temprature": 1}, "a request has no such field. Did you mean 'temperature'?"),
        ({"owner": "me"}, "owner='me'; a request has no such field."),
        ({"\ud800": 1}, r"'\ud800'=1; a request has no such field."),
        ({"x" * 99: 1}, "xxx…=1; a request has no such field."),
        ({"prompt": "a\ud800"}, r"prompt='a\ud800' has half a character in it; send whole ones."),
        ({"system": "\ud800"}, r"system='\ud800' has half a character in it"),
        ({"method": "\udfff"}, r"method='\udfff' has half a character in it"),
        ({"mix": "\udfff"}, r"mix='\udfff' has half a character in it"),
        ({"adapters": ["ant", "\ud800"]}, r"adapters.1='\ud800' has half a character in it"),
        ({"stop": ["\ud800"]}, r"stop.0='\ud800' has half a character in it"),
        ({"history": [("a", "b"), ("a", "\ud800")]}, "history has half a character in turn 2;"),
        ({"history": [("\ud800", "b")]}, "history has half a character in turn 1; send whole"),
        ({"history": [("a", "b", ["\ud800"])]}, "history has half a character in turn 1; send"),
        ({"examples": [("a", "\ud800")]}, "examples has half a character in pair 1; send whole"),
        ({"messages": [("user", "\ud800")]}, "messages has half a character in message 1; send"),
        ({"messages": [("\ud800", "a")]}, "messages has half a character in message 1; send"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(said: dict, sentence: str):
    told = refusal_of(said)
    assert sentence in str(told) and str(told).encode(), "a page can say it"
    assert isinstance(told, WrongField)
    assert told.field.partition(".")[0] in said or "no such field" in sentence


def test_numpy_s_numbers_are_numbers_and_silence_is_the_default():
    assert FIELDS["weights"].read("weights", np.array([0.5, 2], np.float32)) == (0.5, 2.0)
    assert FIELDS["k"].read("k", np.int64(3)) == 3
    silent = {"method": None, "system": " ", "options": {}, "stop": None}
    assert read_request({"prompt": "x", **silent}) == Request("x")
    with pytest.raises(RamoleError, match="prompt is empty"):
        read_request({"prompt": None})
    with pytest.raises(WrongField, match="exclude='ant' is a string; pass a list, such as"):
        Request("x", exclude="ant")


@pytest.mark.parametrize("text", ["question", "text", "input"])
def test_a_column_of_another_name_holds_the_prompts(text: str):
    batch = read_batch(f"{text},label\nwhich boats?,7\n", kind="csv")
    assert batch.rows[0].request == Request("which boats?", trace=False)
    assert batch.unused == ("label",)
    both = read_batch(f'{{"prompt": "a", "{text}": "b"}}\n{{"{text}": "c"}}')
    assert [row.request.prompt for row in both.rows] == ["a", "c"] and both.unused == (text,)


def test_a_closed_system_refuses(tmp_path):
    from ramole_core import Settings

    (tmp_path / "adapters").mkdir()
    ramole = Ramole(Settings(adapters_dir=tmp_path / "adapters", data_dir=tmp_path / "data"))
    ramole.close()
    for asked in (
        ramole.load,
        lambda: ramole.retrieve("x"),
        lambda: ramole.neighbours("x"),
        lambda: ramole.generate([Request("x")]),
        lambda: ramole.select(Request("x")),
    ):
        with pytest.raises(RamoleError, match="is closed; open another one"):
            asked()


def _cell(value: object) -> str:
    text = " ".join(value) if isinstance(value, list) else str(value)
    return f'"{text}"'
