"""The tab Compare without a browser: columns as requests, differing words, looks, picks."""

import pickle
from dataclasses import asdict, replace
from html import escape
from types import SimpleNamespace

import pytest

from ramole_core import Evidence, RamoleError, Request
from tests.support.blocks import built
from tests.support.fake_ramole import WORDS, FakeRamole
from tests.support.serving import wait_until
from ui.charts.explained import token_html
from ui.charts.spans import differing
from ui.compare.layout import CompareLayout
from ui.compare.link import START, Column, ComparisonLink, link_to, read_link
from ui.compare.run import Comparison, compared
from ui.compare.tab import CompareHandlers, columns_of, head_html
from ui.parts.link import packed
from ui.session.quota import quota_of

VISITOR = SimpleNamespace(session_hash="me", headers={})


@pytest.fixture
def handlers():
    ramole = FakeRamole()
    return CompareHandlers(ramole, built(lambda: CompareLayout(ramole)))


def ask(handlers, *columns, prompt="boats?", count=None, length=64):
    """Every look that a visitor is shown."""
    every = [*columns, *START[len(columns) :]]
    choices = [part for c in every for part in (c.method, c.k, c.adapters, c.without)]
    handlers.on_begin(VISITOR, prompt)
    return list(handlers.on_ask(VISITOR, prompt, count or len(columns), length, *choices))


def test_a_column_is_a_request():
    asked = Column("mixture", 2.0, [], ["ant"]).request("boats?", "me", max_new_tokens=9)
    assert asked == Request(
        "boats?",
        method="mixture",
        k=2,
        exclude=("ant",),
        max_new_tokens=9,
        owner="me",
        effects=True,
        split=False,
    )
    named = Column("ramole", 3, ["ant", "bee"], ["bee"]).request("x", None, max_new_tokens=9)
    assert (named.adapters, named.exclude) == (("ant",), ())
    with pytest.raises(RamoleError, match="ant are named and left out"):
        Column("ramole", 3, ["ant"], ["ant"]).request("x", None, max_new_tokens=9)


@pytest.mark.parametrize(
    ("pieces", "first", "places"),
    [
        (["The ", "cat", " sat."], ["The", " cat sat."], []),
        (["The ", "d", "og", " sat", "."], ["The cat sat."], [1, 2]),
        (["a b ", "c"], ["c a b"], [1]),
        (["x", "", " y"], [], [0, 2]),
        ([], ["x"], []),
    ],
)
def test_tokens_of_words_that_the_first_answer_has_not(pieces, first, places):
    assert differing(pieces, first) == places


def test_columns_grow_in_one_batch_and_share_letters():
    ramole, asked = FakeRamole(), Comparison()
    requests = [
        Request("boats?", adapters=["cat", "ant"], method="mixture"),
        Request("boats?", adapters=["ant", "dog"], method="ramole", max_new_tokens=3, effects=True),
        Request("boats?", method="base"),
    ]
    looks = list(compared(ramole, requests, asked))
    assert ramole.batches == 1 and asked.ended.is_set() and looks[-1].note == ""
    letters = [[e["letter"] + e["name"] for e in view["experts"]] for view in looks[-1].views]
    assert letters == [["Acat", "Bant"], ["Bant", "Cdog"], []]
    assert asked.runs[1].did_all.experts == (("ant", 1), ("dog", 2)), "in its bar and sum too"
    assert "B</span>" in token_html(asked.runs[1], 0) and "A</span>" not in token_html(
        asked.runs[1], 0
    )
    assert [view["running"] for view in looks[-1].views] == [False] * 3
    assert [len(run.pieces) for run in asked.runs] == [len(WORDS), 3, len(WORDS)]
    assert "differs" not in looks[-1].views[0] and looks[-1].views[2]["differs"] == []


def test_a_visitor_asks_two_ways_and_looks_into_a_token(handlers):
    looks = ask(handlers, Column("mixture", 2), Column("base"))
    notice, first, second, *rest = looks[-1]
    asked = rest.pop()
    assert pickle.loads(pickle.dumps(asked)).name == asked.name, "it may come from another process"
    assert notice == "" and first["tokens"] and second["tokens"] and not rest[0]["tokens"]
    heads = handlers.on_end(asked)
    shown = handlers.ui.columns
    assert "mixture, k = 2" in heads[shown[0].head] and "<h3>base</h3>" in heads[shown[1].head]
    assert heads[shown[2].head] == ""

    def pick(**said):
        return handlers.on_pick(asked, SimpleNamespace(_data=said))

    there = pick(run=f"{asked.name}-0", index=2)
    assert "Column 1: mixture, k = 2" in there and "Token 3 of 8" in there
    assert "<b>lie" not in there and "&lt;b&gt;lie" in there and "close" not in there
    assert "No adapter was at work" in pick(run=f"{asked.name}-1", index=0)
    assert pick(run=f"{asked.name}-0", index=99) == ""
    for column in ("7", "7" * 5000):
        assert pick(run=f"{asked.name}-{column}", index=0) == ""
    for run in ("", "other-0", f"{asked.name}-x", f"{asked.name}-²"):
        assert "once all answers have ended" in pick(run=run, index=1)
    assert "once all answers have ended" in pick()
    assert handlers.on_names(VISITOR)[0]["choices"][0] == "ant"


def test_a_column_has_one_verdict_and_the_rule_s_numbers_in_a_fold(handlers):
    *_, asked = ask(handlers, Column("ramole_plus", 2), Column("selection"))[-1]
    first, second = asked.runs[0], asked.runs[1]
    assert '<p class="verdict">By selection: ant.</p>' in head_html(second)
    evidence = Evidence("base", "ant", 0.1, 0.25, 0.3)
    said = head_html(replace(first, answer=replace(first.answer, evidence=evidence)))
    assert "No adapter fits; the small base model answers by itself." in said
    fold = said.partition("<details")[2].partition("</details>")[0]
    assert escape(evidence.sentence) in fold and said.count("0.30") == fold.count("0.30") == 1


@pytest.mark.parametrize(
    ("column", "length", "sentence"),
    [
        (Column("mixture", 3, ["ant"], ["ant"]), 9, "are named and left out"),
        (Column("mixture", 2.5), 9, "k is 2.5; give a whole number."),
        (Column("mixture", 2), 9.5, "The token limit is 9.5; give a whole number."),
    ],
)
def test_what_cannot_be_asked_is_one_sentence(handlers, column, length, sentence):
    (look,) = ask(handlers, column, Column("base"), length=length)
    assert sentence in look[0] and not any(view["tokens"] for view in look[1:5])
    assert handlers.ramole.batches == 0
    looks = ask(handlers, Column("mixture", adapters=["<i>"]), Column("base"))
    assert "&lt;i&gt;" in looks[-1][0] and "<i>" not in looks[-1][0] and looks[-1][-1] is None


class Held(FakeRamole):
    """Goes on after the first token of each answer only once it is stopped."""

    def stream_batch(self, requests, *, cancelled, **how):
        came = set()
        for index, item in super().stream_batch(requests, cancelled=cancelled, **how):
            yield index, item
            came.add(index)
            if len(came) == len(requests):
                wait_until(cancelled, seconds=60)


def test_stopping_ends_all_columns_and_what_came_stays():
    ramole, looks = Held(), []
    handlers = CompareHandlers(ramole, built(lambda: CompareLayout(ramole)))
    choices = [part for c in START for part in (c.method, c.k, c.adapters, c.without)]
    for look in handlers.on_ask(VISITOR, "boats?", 2, 64, *choices):
        looks.append(look)
        if look[1]["tokens"]:
            handlers.on_stop(VISITOR)
    asked = looks[-1][-1]
    assert "Stopped." in looks[-1][0]
    assert all(run.answer.finish_reason == "cancelled" for run in asked.runs)
    assert "stopped by you" in head_html(asked.runs[0])
    quota_of(ramole).presence.sessions.leave(VISITOR.session_hash)
    assert handlers._asked.get(VISITOR.session_hash) is None


def test_more_columns_come_into_sight(handlers):
    assert [column.visible for column in handlers.on_count(3)] == [True, True, True, False]
    assert len(columns_of([None] * 16)) == 4


ASKED = ComparisonLink(
    "Which <b>boats</b>? \u202e${1}",
    9,
    (Column("mixture", 2.0, ("ant", "gone"), ()), Column("base", 3, (), ("bee",))),
)


def test_a_link_compares_the_same_again():
    link = link_to(ASKED)
    assert link.startswith("#compare?q=") and link.isascii() and " " not in link
    assert read_link(link + "&t=3") == ASKED
    assert read_link("") is None and read_link("#compare") is None
    assert read_link("#ask?q=abc") is None and ASKED.missing({"ant", "bee"}) == ["gone"]


@pytest.mark.parametrize(
    "changes",
    [
        {"columns": []},
        {"columns": [asdict(ASKED.columns[0])] * 5},
        {"prompt": 3},
        {"length": True},
        {"length": 0},
        {"extra": 1},
        {"columns": [asdict(ASKED.columns[1]) | {"k": 99}] * 2},
        {"columns": [asdict(ASKED.columns[1]) | {"adapters": [3]}] * 2},
    ],
)
def test_a_link_that_says_something_else_is_refused(changes):
    good = {**asdict(ASKED), "columns": [asdict(one) | {"k": 2} for one in ASKED.columns]}
    assert read_link("#compare?q=" + packed(good)) is not None
    with pytest.raises(RamoleError, match="This link cannot be read"):
        read_link("#compare?q=" + packed({**good, **changes}))


def test_a_link_fills_the_form_and_names_what_is_not_here(handlers):
    shown = handlers.on_open(VISITOR, link_to(ASKED))
    first, notice = handlers.ui.columns[0], handlers.ui.notice
    assert (shown[first.method], shown[first.k], shown[first.adapters]) == ("mixture", 2, ["ant"])
    assert shown[handlers.ui.prompt] == ASKED.prompt and shown[handlers.ui.count] == 2
    assert "names gone, which is not here" in shown[notice]
    strange = link_to(ComparisonLink("x", 9, (Column("magic"), Column("base"))))
    for link, said in (("#compare?q=####", "cannot be read"), (strange, "&#x27;magic&#x27;")):
        assert said in handlers.on_open(VISITOR, link)[notice]
    assert list(handlers.on_open(VISITOR, "")) == [notice]


def test_a_link_that_asks_for_more_tokens_than_the_server_allows_gets_what_it_allows(handlers):
    most = handlers.ramole.settings.max_new_tokens
    there = ComparisonLink("x", most, (Column("base"), Column("mixture")))
    for more, said in ((7, f"an answer here has at most {most}"), (0, "")):
        shown = handlers.on_open(VISITOR, link_to(replace(there, length=most + more)))
        notice = shown[handlers.ui.notice]
        assert shown[handlers.ui.length] == most and said in notice and bool(said) == bool(notice)


def test_what_was_asked_is_what_the_link_asks(handlers):
    asked = ask(handlers, *ASKED.columns[1:], Column("mixture", 2), count=2)[-1][-1]
    columns = (ASKED.columns[1], Column("mixture", 2))
    again = read_link(asked.link)
    assert again is not None and again.prompt == "boats?" and again.columns == columns
