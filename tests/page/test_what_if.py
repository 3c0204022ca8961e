"""What if: something switched off at a token, or another one taken, and the answer goes on."""

import threading
from dataclasses import replace
from itertools import islice
from types import SimpleNamespace

import gradio as gr
import pytest

from ramole_core import RamoleError, Request
from tests.page.test_ask import ask, asking
from tests.support.fake_ramole import WORDS, FakeRamole
from tests.support.serving import wait_until
from ui.ask.branch import Change, branched, going_on, verdict, weights_at
from ui.ask.what_if import ALL, EVERY, HERE, NOTHING, TURN, change_of
from ui.charts.did import chance
from ui.charts.explained import token_html


def run_of(ramole: FakeRamole, **how):
    return ask(Request("Which boats?", method="ramole_plus", **how), ramole=ramole)[0]


@pytest.fixture
def ramole():
    return FakeRamole()


@pytest.fixture
def run(ramole):
    return run_of(ramole)


def test_the_branch_gives_what_was_said_and_switches_off_where_the_token_is_predicted(run):
    trace = run.answer.trace
    asked = branched(run, 3, Change(True, "bee", 4, "q_proj"))
    assert asked.prefix_ids == tuple(trace.token_ids[trace.prompt_length :][:3])
    (off,) = asked.without
    assert tuple(off) == ("bee", 4, "q_proj", trace.prompt_length + 2)
    assert replace(asked, prefix_ids=(), without=()) == run.request, "all else is as it was"
    taken = branched(run, 3, Change(token=77))
    assert taken.prefix_ids == (*asked.prefix_ids, 77) and not taken.without
    assert branched(run, 0, Change(True)).prefix_ids == ()
    short = replace(run, request=replace(run.request, max_new_tokens=len(WORDS)))
    assert branched(short, len(WORDS) - 1, Change(token=5)).max_new_tokens > len(WORDS)


def test_an_adapter_that_was_never_there_leaves_the_others_to_read_question_and_answer(run):
    for off in ("bee", None):  # tests/laws/test_left_out.py has what becomes of it
        asked = branched(run, 3, Change(True, off, unfound=True))
        assert asked.without == ((off, None, None, "turn"),) and len(asked.prefix_ids) == 3
        assert replace(asked, prefix_ids=(), without=()) == run.request
    cut = replace(run, request=replace(run.request, split=True))
    assert branched(cut, 3, Change(True, "bee", unfound=True)).split is None
    moved = branched(run, 3, Change(True, "bee", moved="ant", weight=0.5, unfound=True))
    assert moved.later_weights == {"ant": 0.5, "cat": weights_at(run, 3)["cat"]}
    for off in ("ant", None):
        with pytest.raises(RamoleError, match="ant is off, so that it has no weight"):
            branched(run, 3, Change(True, off, moved="ant", weight=0.5, unfound=True))


def test_what_the_token_would_be_without_an_adapter_is_what_its_effect_is_made_of(ramole):
    run, what = run_of(ramole, effects=True), asking(ramole).ui.token.what
    v = run.answer.subset_logprob[2]
    e = run.experts.index("bee")
    since, said = what.on_off(run, 2, "bee", TURN, EVERY, EVERY)
    assert since == TURN and chance(v[7 - (1 << e)]) in said and chance(v[7]) in said
    assert chance(v[0]) in what.on_off(run, 2, ALL, TURN, EVERY, EVERY)[1]
    assert what.on_off(run, 2, "bee", TURN, "3", EVERY) == (HERE, "")
    assert what.on_off(run, 2, "bee", HERE, EVERY, EVERY) == (HERE, "")
    assert what.on_off(run, 2, NOTHING, TURN, EVERY, EVERY)[1] == ""
    assert what.on_off(None, None, "bee", TURN, EVERY, EVERY)[1] == ""
    opened = token_html(run, 2)
    assert "With each choice of adapters" in opened and opened.count("<tr>") == 1 + 2**3


def test_a_moved_weight_holds_the_others_where_they_are_at_the_token(run):
    here = weights_at(run, 3)
    assert set(here) == set(run.experts) and here["bee"] != pytest.approx(1.2)
    means = (run.gates[3] * run.present[3]).sum((0, 1)) / run.present[3].sum((0, 1))
    assert list(here.values()) == pytest.approx(list(means), abs=1e-5)
    asked = branched(run, 3, Change(moved="bee", weight=1.2))
    assert asked.later_weights == here | {"bee": 1.2} and not asked.without
    assert len(asked.prefix_ids) == 3


def test_the_slider_begins_where_the_weight_is(ramole, run):
    what = asking(ramole).ui.token.what
    moved, weighed = what.on_moved(run, 3, "bee", NOTHING)
    assert moved["value"] == weights_at(run, 3)["bee"] > 0 and "here it is" in moved["info"]
    assert weighed == "bee" and what.on_moved(run, 3, "bee", weighed)[0] == gr.skip(), "Tab says so"
    assert what.on_moved(run, 3, NOTHING, weighed)[0]["value"] == 0
    assert what.on_moved(None, None, "bee", NOTHING)[0]["value"] == 0


@pytest.mark.parametrize(
    ("index", "change", "said"),
    [(2, Change(), "Choose what"), (-1, Change(True), "no trace"), (99, Change(True), "no trace")],
)
def test_nothing_to_change_is_a_sentence(run, index, change, said):
    with pytest.raises(RamoleError, match=said):
        branched(run, index, change)


def test_the_answer_goes_on_after_the_old_tokens_with_the_likely_ones_before_and_after(ramole, run):
    def going(change):
        return list(going_on(ramole, run, 3, change, threading.Event(), text="", address="here"))

    looks = going(Change(True, "bee"))
    assert ramole.requests[-1] == branched(run, 3, Change(True, "bee"))
    assert ramole.addresses[-1] == "here"
    last = [look for look in looks if look.view][-1]
    drawn = [line for line in last.view["tokens"].splitlines() if line]
    assert len(drawn) == 3 + len(WORDS)  # the fake writes its eight words again
    assert "From token 4 on, without bee." in last.note and last.view["differs"]
    assert "As it was" in looks[-1].likely and "With the change" in looks[-1].likely
    never = going(Change(True, "bee", unfound=True))
    assert ramole.requests[-1].without == (("bee", None, None, "turn"),)
    last = [look for look in never if look.view][-1]
    assert "as though bee had never been found." in last.note
    assert {one["name"]: one["share"] for one in last.view["experts"]}["ant"] > 0
    assert verdict(run.pieces, run) == "The answer stays the same, word for word."
    assert verdict([*run.pieces[:-1], "other"], run).startswith("3 of 8 tokens")


@pytest.mark.parametrize(
    ("chosen", "change"),
    [
        ((NOTHING, HERE, EVERY, EVERY, NOTHING, 0, -1), Change()),
        ((NOTHING, HERE, "3", "q_proj", NOTHING, 0.7, 7), Change(token=7)),
        ((ALL, HERE, "3", EVERY, NOTHING, 0, -1), Change(True, None, 3, None)),
        (("bee", TURN, EVERY, EVERY, NOTHING, 0, -1), Change(True, "bee", unfound=True)),
        (
            ("bee", HERE, EVERY, "q_proj", "ant", 0.5, 7),
            Change(True, "bee", None, "q_proj", "ant", 0.5, 7),
        ),
        (("zebra", HERE, EVERY, EVERY, NOTHING, 0, -1), None),
        (("bee", TURN, "3", EVERY, NOTHING, 0, -1), None),
        (("bee", HERE, "many", EVERY, NOTHING, 0, -1), None),
        (("bee", HERE, EVERY, EVERY, NOTHING, 0, 8), None),
        ((NOTHING, HERE, EVERY, EVERY, "zebra", 0.5, -1), None),
        ((NOTHING, HERE, EVERY, EVERY, "bee", 1.6, -1), None),
        ((NOTHING, HERE, EVERY, EVERY, "bee", "much", -1), None),
        ((NOTHING, HERE, EVERY, EVERY, "bee", float("nan"), -1), None),
    ],
)
def test_what_is_chosen_is_read_and_what_is_not_there_refused(run, chosen, change):
    if change is not None:
        assert change_of(chosen, {7: "x"}, run) == change
    else:
        with pytest.raises(RamoleError):
            change_of(chosen, {7: "x"}, run)


def test_the_panel_offers_what_the_answer_has_and_says_what_is_wrong(ramole, run):
    handlers = asking(ramole)
    what, panel = handlers.ui.token.what, handlers.ui.token
    told = panel.said(run, 2)
    opened = panel.opened(run, 2)
    assert opened[what.adapter]["choices"] == [NOTHING, ALL, *run.experts]
    assert opened[what.layer]["choices"][1:] == ["0", "1", "2", "3", "4"]
    assert opened[what.picked] == 2 and what.token in told
    visitor = gr.Request(session_hash="one")
    rest = (HERE, EVERY, EVERY, NOTHING, 0, -1)
    *looks, _ = what.on_go(visitor, run, 2, {}, NOTHING, *rest)
    assert "Choose what to switch off" in looks[-1][what.notice]
    *looks, last = what.on_go(visitor, run, 2, {}, "ant", HERE, EVERY, EVERY, NOTHING, 0, -1)
    assert any("without ant" in look.get(what.notice, "") for look in looks)
    assert last[what.go].interactive and not last[what.stop].interactive


VISITOR = gr.Request(session_hash="one")
ELSEWHERE = {
    "another token": lambda hands, run: hands.ui.token.on_pick(VISITOR, run, at(5)),
    "an earlier turn": lambda hands, run: list(hands.talk.on_pick(VISITOR, (), at(0))),
    "a question": lambda hands, run: hands.on_begin(VISITOR, "Whose?", False, run, ()),
    "a follow-up": lambda hands, run: hands.on_begin(VISITOR, "And?", False, run, (), True),
    "a prompt to try": lambda hands, run: hands.on_begin_live(VISITOR, False, at(0)),
    "a recorded run again": lambda hands, run: hands.on_begin_again(VISITOR, run),
    "a new conversation": lambda hands, run: hands.talk.on_new(VISITOR),
    "a recorded run": lambda hands, run: hands.on_show_recorded(VISITOR, at(0)),
}
"""What else is looked at, with the event that brings it."""


def at(index: int) -> SimpleNamespace:
    """A press on what stands at this place."""
    return SimpleNamespace(_data={"index": index, "run": "first"})


def branching(hands, run):
    """An answer that goes on from the fourth token, which is open, for long; its first tokens have
    come."""
    ramole, what = hands.ramole, hands.ui.token.what
    ramole.length, ramole.pause = 100_000, 0.001
    long = replace(run, request=replace(run.request, max_new_tokens=ramole.length))
    hands.ui.token.on_pick(VISITOR, long, at(3))
    rest = (HERE, EVERY, EVERY, NOTHING, 0, -1)
    looks = what.on_go(VISITOR, long, 3, {}, "ant", *rest)
    while "$" not in next(looks).get(what.view, {"tokens": ""})["tokens"]:
        pass
    assert ramole.running == 1
    return long, looks


@pytest.mark.parametrize("event", ELSEWHERE)
def test_a_branch_ends_and_is_drawn_no_more_once_something_else_is_looked_at(ramole, run, event):
    hands = asking(ramole)
    what = hands.ui.token.what
    long, looks = branching(hands, run)
    ELSEWHERE[event](hands, long)
    *others, last = islice(looks, 40)
    assert others == [], "nothing of it is drawn any more"
    assert not last[what.notice] and not last[what.view]["tokens"] and not last[what.likely]
    assert last[what.go].interactive and not last[what.stop].interactive
    wait_until(lambda: not ramole.running)


def test_a_branch_goes_on_where_its_own_token_is_pressed_again(ramole, run):
    hands = asking(ramole)
    what = hands.ui.token.what
    long, looks = branching(hands, run)
    hands.ui.token.on_pick(VISITOR, long, at(3))
    assert next(looks)[what.view]["tokens"] and ramole.running == 1
    what.on_stop(VISITOR)
    *others, last = looks
    assert "Stopped. From token 4 on, without ant." in others[-1][what.notice]
    assert others[-1][what.view]["tokens"] and set(last) == {what.go, what.stop}
    wait_until(lambda: not ramole.running)
