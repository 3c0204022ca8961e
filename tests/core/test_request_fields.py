"""Laws over every field of a request: said once, read alike by every door."""

import inspect
import json
import math
import re

import numpy as np
import pytest
import typer

from ramole_core import Ramole, RamoleError, Request, WrongField, read_request
from ramole_core.batch.formats import JSON_ALONE
from ramole_core.batch.prompt_file import read_batch
from ramole_core.cli import app
from ramole_core.request import DEFAULTS, FIELDS
from ramole_core.request_parts import Exchange, Off, read_example_lines, read_without
from tests.support.fake_ramole import FakeRamole
from ui.api.asking import FIRST, ask_endpoint
from ui.api.fields import read_ask

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


# --- turns, given tokens, examples, what is switched off ------------------------------------------


def test_lists_become_tuples_and_the_defaults_are_empty():
    request = Request(
        "and now?",
        history=[["one", "1"], ("two", "2", ["ant"]), ("three", "", [])],
        prefix_ids=[4, 5],
        without=[("ant", 3, "q_proj"), [None, None, None, 7]],
    )
    assert request.history == (
        Exchange("one", "1", None),
        Exchange("two", "2", ("ant",)),
        Exchange("three", "", ()),
    )
    assert request.prefix_ids == (4, 5)
    assert request.without == (Off("ant", 3, "q_proj", None), Off(None, None, None, 7))
    bare = Request("hello")
    assert (bare.history, bare.prefix_ids, bare.without, bare.drop_turns) == ((), (), (), False)
    assert bare.turns == (bare,)


def refusal_of(said: dict) -> RamoleError:
    """The refusal of a request that says this: the page's endpoint has the same sentence, and so
    has a row of a batch where JSON can say it."""
    with pytest.raises(RamoleError) as told:
        read_request({"prompt": "now", **said})
    with pytest.raises(RamoleError) as asked:
        read_ask(FakeRamole(), {"prompt": "now", **said}, owner=None)
    assert str(asked.value) == str(told.value)
    row = json.dumps({"prompt": "now", **said})
    if said.keys() <= FIELDS.keys() and not re.search(r"\\ud|NaN|Infinity", row):
        sentences = []
        try:
            read_request(json.loads(row))
        except RamoleError as error:
            sentences.append(str(error))
        assert [bad.sentence for bad in read_batch(row).bad] == sentences
    return told.value


TURN = ("Hello", "Hi.")


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("history", "Hello", "history='Hello' is a string; pass a list"),
        ("history", 3, "history=3; pass a list"),
        ("history", ["Hello"], "Turn 1 of history is 'Hello'; give"),
        ("history", [TURN, ("a",)], "Turn 2 of history"),
        ("history", [("a", None)], "as strings"),
        ("history", [("  ", "b")], "empty user's text"),
        ("history", [("a", "b", "ant")], "turn 1 of history='ant' is a string"),
        ("history", [("a", "b", [1])], "give their names"),
        ("history", [("a", "b", ["ant", "ant"])], "twice"),
        ("prefix_ids", "12", "prefix_ids='12' is a string"),
        ("prefix_ids", [1, 2.5], "prefix_ids has 2.5"),
        ("prefix_ids", [True], "prefix_ids has True"),
        ("prefix_ids", [-1], "prefix_ids has -1"),
        ("prefix_ids", [2**31 - 1, 2**31], "prefix_ids has 2147483648; give a list of token ids"),
        ("later_weights", [("ant", 1)], "pass a mapping from adapters' names to weights"),
        ("later_weights", {"ant": True}, "later_weights has 'ant': True"),
        ("later_weights", {3: 0.5}, "later_weights has 3: 0.5"),
        ("later_weights", {"ant": 10**400}, "later_weights has 'ant': 10000"),
        ("without", "ant", "without='ant' is a string"),
        ("without", ["ant"], "without has 'ant'; give"),
        ("without", [("ant", 1)], "give .adapter, layer, module"),
        ("without", [(1, 1, None)], "not the name of an adapter"),
        ("without", [(None, "1", None)], "not the number of a layer"),
        ("without", [(None, True, None)], "not the number of a layer"),
        ("without", [(None, None, 4)], "not the name of a module"),
        ("without", [(None, None, None, -1)], "-1 is not a position"),
        ("without", [(None, None, None, 0.5)], "0.5 is not a position"),
        ("later_weights", {"ant": float("inf")}, "later_weights has 'ant': inf"),
        ("examples", "a", "examples='a' is a string; pass a list of"),
        ("examples", 5, "examples=5; pass a list"),
        ("examples", [("a",)], "Pair 1 of examples is .*; give .input, target."),
        ("examples", ["ab"], "Pair 1 of examples is 'ab'; give"),
        ("examples", [("a", "b"), ("a", 4)], "Pair 2 of examples has 4 as target; give a text"),
        ("examples", [(" ", "b")], "Pair 1 of examples has an empty input; leave the pair out"),
        ("examples", [("a", "")], "Pair 1 of examples has an empty target"),
        ("examples", [("a", "b" * 8001)], "target has 8001 characters, and 8000 is the most"),
        ("examples", [("a", "b")] * 33, "more than 32 pairs, the most that is read"),
    ],
)
def test_what_cannot_be_read_of_a_part_is_one_sentence(name, given, message):
    with pytest.raises(RamoleError, match=message) as refused:
        Request("now", **{name: given})
    assert str(refused.value).endswith(".") and "\n" not in str(refused.value)
    assert str(refusal_of({name: given})) == str(refused.value)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("history", "x" * 9000),
        ("history", ["x" * 9000]),
        ("history", [("x" * 9000, 3)]),
        ("history", [("a", "b", ["x" * 9000, 3])]),
        ("history", [("a", "b", ["x" * 9000] * 2)]),
        ("prefix_ids", ["x" * 9000]),
        ("without", [("x" * 9000, "y" * 9000, "z" * 9000)]),
    ],
)
def test_a_refusal_repeats_no_more_than_the_beginning(name, given):
    with pytest.raises(RamoleError) as refused:
        Request("now", **{name: given})
    assert len(str(refused.value)) < 300


def test_a_turn_is_a_request_of_its_own():
    request = Request(
        "and now?",
        method="similarity",
        k=2,
        exclude=["bee"],
        system="Be brief.",
        options={"temperature": 0.5},
        history=[("one", "1"), ("two", "2", ("bee", "cat")), ("three", "3", ())],
        prefix_ids=[4],
        without=[(None, 1, None)],
        drop_turns=True,
        owner="ann",
    )
    shared = {"k": 2, "system": "Be brief.", "owner": "ann"}
    own = {"method": "similarity", "options": {"temperature": 0.5}}
    assert request.turns == (
        Request("one", exclude=["bee"], **own, **shared),
        Request("two", adapters=["bee", "cat"], **own, **shared),
        Request("three", method="base", **shared),
        Request("and now?", exclude=["bee"], **own, **shared),
    )


def test_the_adapters_of_the_request_are_those_of_turns_that_name_none():
    history = [("one", "1"), ("two", "2", ["cat"])]
    request = Request("now", adapters=["ant", "bee"], weights=[1.0, 2.0], history=history)
    first, second, last = request.turns
    assert first == Request("one", adapters=["ant", "bee"], weights=[1.0, 2.0])
    assert second == Request("two", adapters=["cat"]), "the weights belong to other adapters"
    assert last == Request("now", adapters=["ant", "bee"], weights=[1.0, 2.0])


def test_pairs_come_as_pairs_or_as_rows_of_a_task():
    rows = [["a", "b"], {"inputs": "c", "targets": "d", "metric": "em"}]
    assert Request("hi", examples=rows).examples == (("a", "b"), ("c", "d"))
    text = 'a => b\n{"inputs": "c => x", "targets": "d"}\n'
    assert read_example_lines(text) == (("a", "b"), ("c => x", "d"))
    with pytest.raises(RamoleError, match="Line 3 of the examples is 'nothing'; write"):
        read_example_lines(text + "nothing")
    with pytest.raises(RamoleError, match="more than 32 pairs"):
        read_example_lines("a => b\n" * 10_000)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"examples": [("a", "b")], "adapters": ["x"], "weights": [1.0]}, "weights and examples"),
        ({"mix": ""}, "give the name of a mix"),
        ({"mix": "m", "adapters": ["x"]}, "mix='m' says which .* but adapters came as well"),
        ({"mix": "m", "examples": [("a", "b")]}, "but examples came as well"),
        ({"history": [TURN], "raw": True}, "history needs the chat template"),
        ({"system": "Be brief.", "raw": True}, "system needs the chat template"),
        ({"prefix_ids": [1, 2], "max_new_tokens": 2}, "has ended"),
    ],
)
def test_fields_that_contradict_each_other_are_one_sentence(said, reason):
    with pytest.raises(RamoleError, match=reason):
        Request("hi", **said)


def test_numbers_of_numpy_become_plain_ones():
    (token,) = Request("now", prefix_ids=np.array([4])).prefix_ids  # pyright: ignore
    (off,) = read_without([(None, np.int64(2), None, np.int32(7))])
    assert [type(one) for one in (token, off.layer, off.start)] == [int, int, int]
    assert (token, off.layer, off.start) == (4, 2, 7)
