"""What a request says of earlier turns, of tokens that are given, and of what is switched off."""

import json
import re

import numpy as np
import pytest

from ramole_core import RamoleError, Request, read_request
from ramole_core.batch.prompt_file import read_batch
from ramole_core.request import FIELDS
from ramole_core.request_parts import Exchange, Off, read_example_lines, read_without
from tests.support.fake_ramole import FakeRamole
from ui.api.fields import read_ask


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
def test_what_cannot_be_read_is_one_sentence(name, given, message):
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
