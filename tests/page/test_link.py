"""A question as the end of an address, and as Python."""

import base64
import zlib
from types import SimpleNamespace
from unittest.mock import MagicMock

import gradio as gr
import pytest
from hypothesis import given, settings, strategies as st

from ramole_core import RamoleError, Request
from tests.page.test_ask import asking
from tests.support.fake_ramole import FakeRamole
from ui.ask.form import Form
from ui.ask.takeaway import python_words, takeaway_of
from ui.parts.link import (
    MAX_CHARACTERS,
    link_to,
    link_to_recorded,
    missing,
    packed,
    read_link,
)

HOSTILE = "<img src=x onerror=alert(1)> ${1} {{x}} \u202eabc\u200b \U0001f41d &t=9#?r=%00\n"


WHOLE = Request(
    HOSTILE * 40,
    method="similarity",
    k=2,
    adapters=("ant", "bee"),
    weights=(0.25, -1.5),
    max_new_tokens=7,
    temperature=0.5,
    top_p=0.9,
    seed=3,
    stop=("\n",),
    system="Be <b>brief</b>.",
    history=(("Hi", "Hello", ("ant",)), ("And?", "Well.", ())),
    options={"temperature": 0.2},
    abstain=False,
)


def test_a_link_asks_for_the_same_request_and_names_no_owner():
    link = read_link(link_to(WHOLE, beside=False))
    assert link is not None and link.request == WHOLE and not link.beside
    told = link_to(Request("Hi", owner="session-secret", trace=False), beside=True)
    link = read_link(told)
    assert link is not None and link.request == Request("Hi") and link.beside
    words = zlib.decompress(base64.urlsafe_b64decode(told.partition("r=")[2] + "=="))
    assert b"secret" not in words


@given(st.text(min_size=1).filter(str.strip))
@settings(max_examples=60, deadline=None)
def test_whatever_is_asked_comes_back_as_it_was(prompt):
    told = link_to(Request(prompt), beside=True) + "&t=3"
    assert told.isascii() and " " not in told
    link = read_link(told)
    assert link is not None and link.request is not None and link.request.prompt == prompt


def test_a_page_without_a_question_asks_nothing():
    assert read_link("") is None and read_link("#pool") is None and read_link("#ask?t=3") is None
    link = read_link(link_to_recorded("05-python function"))
    assert link is not None and link.recorded == "05-python function"


@pytest.mark.parametrize(
    "fragment",
    [
        "#ask?r=####",
        "#ask?r=abc",
        link_to(WHOLE, beside=True)[:-9],
        "#ask?r=" + packed([1]),
        "#ask?r=" + packed({"prompt": "Hi", "owner": "session-x"}),
        "#ask?r=" + packed({"prompt": "Hi", "colour": "red"}),
        "#ask?r=" + packed({"prompt": "Hi", "history": {"a": 1}}),
        "#ask?r=" + packed({"k": 3}),
        "#ask?r=" + packed({"prompt": "x" * MAX_CHARACTERS}),
    ],
)
def test_a_broken_link_is_one_sentence(fragment):
    with pytest.raises(RamoleError) as caught:
        read_link(fragment)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_adapters_that_are_not_here_are_named():
    asked = Request("Hi", adapters=("ant", "mine"), history=(("a", "b", ("theirs",)), ("c", "d")))
    assert missing(asked, {"ant", "bee"}) == ["mine", "theirs"]
    assert missing(Request("Hi", exclude=("gone",)), {"ant"}) == ["gone"]


@pytest.mark.parametrize("request_", [WHOLE, Request("Hi")], ids=["whole", "bare"])
def test_python_asks_the_same_again(request_):
    ramole = MagicMock()
    generate = ramole.__enter__.return_value.generate
    generate.return_value = [SimpleNamespace(text="", adapters=())]
    known = {"Ramole": lambda settings: ramole, "Settings": lambda: None, "Request": Request}
    body = python_words(request_).partition("\n")[2]
    exec(body, known | {"print": lambda *said: None})
    generate.assert_called_once_with([request_])


def visitor(name: str = "one") -> gr.Request:
    return gr.Request(session_hash=name)


def test_a_link_fills_the_form_and_its_turns():
    handlers = asking(FakeRamole())
    ui, entry = handlers.ui, handlers.ui.entry
    asked = Request("Which boats?", method="mixture", adapters=("ant",), k=2, seed=4,
                    history=(("Hi", "Hello", ("bee", "gone")),))  # fmt: skip
    shown = handlers.opening.on_open(visitor(), link_to(asked, beside=False))
    assert shown[entry.prompt] == "Which boats?" and shown[entry.method] == "mixture"
    assert shown[entry.fields["pinned"]]["value"] == ["ant"]
    assert shown[entry.fields["beside"]] is False and shown[entry.fields["seed"]] == "4"
    (turn,) = shown[ui.turns]
    assert (turn.user, turn.assistant, turn.adapters) == ("Hi", "Hello", ("bee",))
    assert "names gone, which is not here" in shown[ui.outcome.notice]


MOST = FakeRamole().settings.max_new_tokens
UNSEEN = "top_k, ignore_eos, abstain, which are not on the form"
MIX = {"method": "lorahub"}
TURNS = {"history": (("Hi", "Hello", ()),), "drop_turns": True}


@pytest.mark.parametrize(
    ("asked", "said", "field", "value"),
    [
        ({"max_new_tokens": MOST + 7}, f"has at most {MOST}", "max_new_tokens", MOST),
        ({"max_new_tokens": MOST}, "", "max_new_tokens", MOST),
        ({"top_k": 5, "ignore_eos": True, "abstain": True, "seed": 4}, UNSEEN, "seed", "4"),
        ({"seed": 4}, "", "seed", "4"),
        (TURNS, "", "prompt", "Which boats?"),
        (MIX | {"mix": "gone"}, "the kept weights gone, which are not here", "mix", None),
        (MIX | {"mix": "reds"}, "", "mix", "reds"),
    ],
)
def test_what_a_link_asks_for_and_is_not_to_be_had_is_said(asked, said, field, value):
    handlers = asking(FakeRamole())
    handlers.ramole.mixes = lambda owner: [SimpleNamespace(name="reds", method="lorahub")]
    request = Request("Which boats?", **asked)
    shown = handlers.opening.on_open(visitor(), link_to(request, beside=True))
    notice = shown[handlers.ui.outcome.notice]
    assert said in notice and bool(said) == bool(notice)
    filled = shown[handlers.ui.entry.fields[field]]
    assert (filled["value"] if isinstance(filled, dict) else filled) == value
    assert shown[handlers.ui.entry.drop].value == request.drop_turns


def test_weights_of_many_digits_come_back():
    handlers, weights = asking(FakeRamole()), (1 / 3, 2 / 3)
    told = link_to(Request("A?", adapters=("ant", "bee"), weights=weights), beside=True)
    shown = handlers.opening.on_open(visitor(), told)
    form = Form("A?", pinned=["ant", "bee"], weights=shown[handlers.ui.entry.fields["weights"]])
    assert form.request(None).weights == weights


def test_an_adapter_that_was_chosen_and_is_gone_is_chosen_no_more():
    handlers = asking(FakeRamole())
    pinned, exclude, mix = handlers.on_names(visitor(), ["ant", "gone"], ["bee"], "gone")
    assert pinned["value"] == ["ant"] and "value" not in exclude and mix["value"] is None
    assert not any("value" in one for one in handlers.on_names(visitor()))


def test_a_link_of_another_page_is_told_in_a_sentence_and_changes_nothing():
    handlers = asking(FakeRamole())
    notice = handlers.ui.outcome.notice
    for fragment, said in (
        (link_to(Request("Hi", method="<b>magic"), beside=True), "&#x27;&lt;b&gt;magic&#x27;"),
        (link_to_recorded("nothing"), "does not have"),
        ("#ask?r=abc", "cannot be read"),
    ):
        shown = handlers.opening.on_open(visitor(), fragment)
        assert set(shown) == {notice} and said in shown[notice]
    first = handlers.opening.on_open(visitor(), "#pool")
    assert first[handlers.ui.run].title and handlers.ui.entry.prompt not in first


def test_a_recorded_run_has_a_link_of_its_own():
    handlers = asking(FakeRamole())
    name = handlers.recorded[0].stem
    shown = handlers.opening.on_open(visitor(), link_to_recorded(name))
    run = shown[handlers.ui.run]
    assert run.title and shown[handlers.ui.outcome.takeaway]["link"] == link_to_recorded(name)
    assert takeaway_of(None) == {}
