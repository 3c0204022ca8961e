"""A conversation in the tab Ask without a browser: what is asked, what is kept, what is shown."""

from dataclasses import replace
from functools import cache
from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest

from ramole_core import RamoleError, Request
from tests.page.test_ask import ask, asking, tokens_of
from tests.support.fake_ramole import OPTIONS, WORDS, FakeRamole
from ui.ask.answer import AnswerUpdate
from ui.ask.conversation import EMPTY, Turn, continued, shortened, turn_of, view_of_conversation
from ui.ask.form import FIELDS, Form
from ui.ask.found import timing_html
from ui.ask.layout import AskLayout
from ui.ask.tab import AskHandlers
from ui.ask.talk import MAX_TURNS
from ui.ask.updates import Updates
from ui.charts.palette import ink_of, scale_of
from ui.charts.recorded import read_run, recorded_files
from ui.charts.run import FoundAdapter, Run
from ui.charts.tokens import view_of_run
from ui.parts.prompts import LIVE
from ui.session.quota import quota_of

TALK = (Turn("a", "one", "1", ("ant", "bee")), Turn("b", "two", "2", ()))


@cache
def layout() -> AskLayout:
    """The tab's components, which hold nothing by themselves but the system of a token's panel."""
    return asking(FakeRamole(options=OPTIONS)).ui


class Visit:
    """One visitor of the tab: presses, and what the components hold by then."""

    def __init__(self, ramole: FakeRamole, session: str = "me"):
        self.ramole, self.ui = ramole, layout()
        self.ui.token.ramole = ramole
        self.handlers = AskHandlers(ramole, self.ui, recorded_files()[:1])
        self.request = SimpleNamespace(session_hash=session, headers={})
        self.held: dict = {self.ui.turns: (), self.ui.run: None, self.ui.outcome.talk: EMPTY}
        self.held[self.ui.asked] = {}
        self.follows = False

    def __getattr__(self, name: str):
        """`turns`, `run`, or a component of the entry or the outcome."""
        for part in (self.ui, self.ui.entry, self.ui.outcome):
            if hasattr(part, name):
                return self.held.get(getattr(part, name))
        raise AttributeError(name)

    def ask(self, prompt: str, *, drop: bool = False, beside: bool = True, **form) -> None:
        """Type, press Ask (or Enter), and wait."""
        begun = (self.request, prompt, beside, self.run, self.turns, self.follows)
        self.held |= self.handlers.on_begin(*begun)
        self.follows = False
        self.answer(Form(prompt=prompt, beside=beside, **form), drop=drop)

    def answer(self, form: Form, *, drop: bool = False) -> None:
        """Wait for what was asked, with these fields in the form."""
        hands, request = self.handlers, self.request
        values = [getattr(form, name) for name in FIELDS]
        values += [field.default for field in self.ui.entry.options.fields]
        for picture in hands.on_ask(request, self.turns, drop, self.asked, *values):
            self.held |= dict(zip(self.ui.growing, picture, strict=True))
        self.end(form.prompt)

    def end(self, prompt: str) -> None:
        """What follows an answer, with this in the prompt's field."""
        self.held |= self.handlers.on_end(self.request, self.run, self.turns, prompt, self.asked)

    @property
    def label(self) -> str:
        """Of the button that asks."""
        return self.held[self.ui.entry.ask].value

    def go_on(self) -> None:
        """Tick the box that makes the next question a follow-up."""
        self.follows = True

    def pick(self, name: str, index: int) -> list[dict]:
        event = SimpleNamespace(_data={"run": name, "index": index})
        return list(self.handlers.talk.on_pick(self.request, self.turns, event))


ALONE = {"turns": []}
"""How a question looks that is its own."""


@pytest.fixture
def visit() -> Visit:
    return Visit(FakeRamole())


def test_an_earlier_turn_goes_along_with_the_adapters_it_had_and_the_base_reads_all_alone():
    request = continued(Request("three", k=2), TALK, drop=True)
    assert request == Request(
        "three", k=2, history=[("one", "1", ("ant", "bee")), ("two", "2", ())], drop_turns=True
    )
    bare = continued(Request("three", method="base"), TALK, drop=False)
    assert bare.history == (("one", "1", ()), ("two", "2", ())) and not bare.drop_turns
    assert continued(Request("one"), (), drop=True) == Request("one")


def test_the_base_beside_an_answer_reads_the_same_turns_without_adapters_and_options():
    request = replace(continued(Request("three"), TALK, drop=True), options={"warmth": 1.0})
    run, _, ramole = ask(replace(request, method="mixture"), beside=True)
    mixed, bare = ramole.requests
    assert [turn[:2] for turn in bare.history] == [turn[:2] for turn in mixed.history]
    assert [turn.adapters for turn in bare.history] == [(), ()] and bare.drop_turns
    assert bare.method == "base" and bare.options is None
    assert run.beside is not None and "conversation" in timing_html(run)


def test_a_question_is_its_own_until_one_asks_on(visit):
    assert not visit.ui.entry.on.visible
    visit.ask("one")
    assert visit.on.value is False
    assert visit.turns == () and visit.talk == ALONE | {"asked": "one"} and visit.label == "Ask"
    assert "follow up on this answer" in visit.notice
    assert visit.on.visible and not visit.new.visible and not visit.drop.visible
    visit.ask("two")
    assert visit.run.request.history == () and visit.talk == ALONE | {"asked": "two"}


def test_asking_on_keeps_every_turn_with_what_it_had(visit):
    visit.ask("one", k=2)
    first = visit.run
    on = visit.handlers.on_begin(visit.request, "two", True, visit.run, visit.turns, True)
    assert [turn.user for turn in on[visit.ui.turns]] == ["one"]
    assert not on[visit.ui.entry.on].visible, "from then on it is a conversation"
    visit.go_on()
    visit.ask("two", exclude=["ant", "bee"], k=1)
    assert visit.run.request.history == (("one", "".join(WORDS), ("ant", "bee")),)
    assert visit.run.experts == ["cat"] and visit.run.gates.shape[-1] == 1
    assert visit.run.answer.trace.adapters == ["cat", "ant", "bee"]
    assert not visit.on.visible and visit.new.visible and visit.drop.visible
    assert visit.label == "Ask on"
    visit.ask("three", method="base")
    said = "".join(WORDS)
    assert visit.run.request.history == (("one", said, ()), ("two", said, ()))
    one, two = visit.talk["turns"]
    assert (one["prompt"], two["prompt"], visit.talk["asked"]) == ("one", "two", "three")
    assert one["view"] == view_of_run(first, one["name"])
    assert [expert["name"] for expert in two["view"]["experts"]] == ["cat"]
    assert one["how"] == "ramole_plus: ant 0.900, bee 0.700"
    assert one["beside"] == "".join(WORDS)
    assert tokens_of(visit.view)[0]["e"] == -1, "the newest answer is drawn as always"


def test_an_adapter_has_one_letter_and_colour_in_all_of_a_conversation(visit):
    visit.ask("one", k=2)
    begun = (visit.request, "two", True, visit.run, visit.turns, True)
    visit.held |= visit.handlers.on_begin(*begun)
    names = (("cat", 0.5, True), ("bee", 0.4, True), ("ant", 0.3, False))
    found = tuple(FoundAdapter(*one) for one in names)
    growing = AnswerUpdate(
        found=found, experts=("cat", "bee"), pieces=("a",), shares=(np.eye(2)[0],)
    )
    _, view, _, beside, _ = Updates("x", visit.turns).picture(growing)
    visit.ask("two", pinned=["cat", "bee"])
    colours = {}
    for shown, html in ((view, beside), (visit.view, visit.found)):
        assert [one["letter"] for one in shown["experts"]] == ["C", "B"]
        colours |= {one["colour"]: one["letter"] for one in shown["experts"]}
        assert html.index(">C</span>") < html.index(">B</span>") and ">A</span>" not in html
    first = visit.talk["turns"][0]["view"]["experts"]
    assert [(one["letter"], one["name"]) for one in first] == [("A", "ant"), ("B", "bee")]
    assert colours == {ink_of(2).colour: "C", first[1]["colour"]: "B"}
    token = visit.ui.token
    panel = token.opened(visit.run, 0)
    plot = panel[token.plot]
    assert "<strong>C cat</strong>" in panel[token.token]
    assert [note.text for note in plot.layout.annotations[:2]] == ["<b>C</b> cat", "<b>B</b> bee"]
    assert plot.data[0].colorscale[-1][1] == scale_of(2)[-1][1]
    assert panel[token.table].headers[2:4] == ["C contribution", "B contribution"]


def test_the_prompt_is_free_again_in_a_conversation_and_only_there(visit):
    prompt = visit.ui.entry.prompt
    visit.ask("one")
    assert prompt not in visit.held
    visit.go_on()
    visit.ask("two")
    assert visit.held.pop(prompt) == ""
    empty = replace(visit.run, pieces=())
    typed = visit.handlers.on_end(visit.request, empty, visit.turns, "two", visit.asked)
    assert prompt not in typed, "what was stopped before it began may be asked again"
    visit.end("typed meanwhile")
    assert prompt not in visit.held


def test_what_does_not_fit_is_the_core_s_sentence_and_the_oldest_can_be_dropped():
    visit = Visit(FakeRamole(most_turns=1))
    visit.ask("one")
    visit.go_on()
    visit.ask("two")
    visit.held |= visit.handlers.on_begin(visit.request, "three", True, visit.run, visit.turns)
    values = [getattr(Form(prompt="three"), name) for name in FIELDS] + [0.5, 3, False]
    pictures = list(visit.handlers.on_ask(visit.request, visit.turns, False, visit.asked, *values))
    (notice, *_, run) = pictures[-1]
    assert "has 3 turns" in notice and "drop_turns=True" in notice and run is None
    visit.end("three")
    assert visit.drop.visible and [turn.user for turn in visit.turns] == ["one", "two"]
    visit.ask("three", drop=True)
    assert len(visit.run.request.history) == 2 and visit.run.request.drop_turns
    assert "left out: 1" in visit.notice


def test_a_token_of_an_earlier_turn_opens_like_one_of_the_newest_answer(visit):
    visit.ask("one")
    runs = [visit.run]
    visit.go_on()
    visit.ask("two")
    runs.append(visit.run)
    visit.ask("three")
    token, likely = visit.ui.token.token, visit.ui.token.likely
    for number, (turn, run) in enumerate(zip(visit.turns, runs, strict=True), 1):
        opened, explained = visit.pick(turn.name, 3)
        assert f"Turn {number}, token 4 of 8" in opened[token]
        plain, _ = list(visit.ui.token.picked("me", run, 3, turn=0))
        assert opened[token].replace(f"Turn {number}, t", "T") == plain[token]
        assert 'class="chosen"' in explained[likely]
        visit.pick(turn.name, 3)
        trace = run.answer.trace
        assert visit.ramole.explained_at == (trace.prompt_length + 2, trace.token_ids)


def test_of_two_tokens_of_earlier_turns_the_one_picked_last_is_explained(visit):
    visit.ask("one")
    for prompt in ("two", "three"):
        visit.go_on()
        visit.ask(prompt)
    events = [SimpleNamespace(_data={"run": turn.name, "index": 3}) for turn in visit.turns]
    talk, token = visit.handlers.talk, visit.ui.token
    first, second = (talk.on_pick(visit.request, visit.turns, event) for event in events)
    assert "Turn 1, token 4 of 8" in next(first)[token.token]
    assert "Turn 2, token 4 of 8" in next(second)[token.token]
    assert list(first) == [], "its explanation would stand under the other token"
    (explained,) = second
    assert 'class="chosen"' in explained[token.likely]


def test_nobody_else_sees_my_turns_and_they_go_with_me(visit):
    visit.ask("one")
    visit.go_on()
    visit.ask("two")
    name = visit.turns[0].name
    assert len(visit.handlers.talk.earlier("me", name).answer.trace.weights) == 1 + len(WORDS)
    sessions, other = visit.handlers.talk, SimpleNamespace(session_hash="other", headers={})
    assert sessions.earlier("me", name) is not None and sessions.earlier("other", name) is None
    event = SimpleNamespace(_data={"run": name, "index": 0})
    for request, turns in ((other, visit.turns), (visit.request, ())):
        (told,) = visit.handlers.talk.on_pick(request, turns, event)
        said = told[visit.ui.token.token]
        assert "no longer kept" in said and "has ended" not in said, "it ended long ago"
    quota_of(visit.ramole).presence.sessions.leave("me")
    assert sessions.earlier("me", name) is None
    visit.ask("three")  # a connection that was lost for a moment: the conversation holds
    assert [turn[0] for turn in visit.run.request.history] == ["one", "two"]
    view = visit.talk["turns"][0]["view"]
    assert [one["t"] for one in tokens_of(view)] == ["".join(WORDS)]
    assert view["plain"] and not view["meaning"], "nobody knows who led it"
    assert not visit.view.get("plain")


@pytest.mark.parametrize("end", ["new", "recorded", "live"])
def test_a_conversation_ends_with_a_new_one_or_an_example(end, visit):
    visit.ask("one")
    visit.go_on()
    visit.ask("two")
    hands, event = visit.handlers, SimpleNamespace(_data={"index": 0})
    name = visit.turns[0].name
    assert hands.talk.earlier("me", name) is not None
    if end == "new":
        visit.held |= hands.talk.on_new(visit.request)
        assert visit.run is None and visit.talk == EMPTY and visit.label == "Ask"
        assert tokens_of(visit.view) == []
    elif end == "recorded":
        visit.held |= hands.on_show_recorded(visit.request, event)
        assert not visit.talk["turns"] and visit.talk["asked"], "its question stands above it"
        assert not visit.on.visible, "nobody asks on after a recorded run"
    else:
        visit.held |= hands.on_begin_live(visit.request, True, event)
    assert visit.turns == () and hands.talk.earlier("me", name) is None
    visit.ask("three")
    assert visit.run.request.history == () and visit.talk == ALONE | {"asked": "three"}


def test_a_recorded_chat_shows_its_earlier_turns_in_their_colours_and_is_asked_again(visit):
    place = next(n for n, path in enumerate(recorded_files()) if read_run(path).request.history)
    visit.handlers.recorded = recorded_files()
    event = SimpleNamespace(_data={"index": place})
    shown = visit.handlers.on_show_recorded(visit.request, event)
    assert not set(visit.ui.entry.values) & set(shown), "the form stays"
    visit.held |= shown
    run = read_run(recorded_files()[place])
    assert visit.turns == (), "a question that is typed now is its own"
    user, said, names = run.request.history[0]
    (shown,) = visit.talk["turns"]
    assert shown["prompt"] == user and names[0] in shown["how"]
    assert {one["e"] for one in tokens_of(shown["view"])} != {-1}, "coloured"
    assert visit.talk["asked"] == run.request.prompt
    assert "cannot be opened" not in str(visit.pick(shown["name"], 3)[-1])
    visit.held |= visit.handlers.on_begin_again(visit.request, visit.run)
    (turn,) = visit.turns
    assert (turn.user, turn.assistant, turn.adapters) == (user, said, tuple(names))
    visit.answer(Form("typed before", k=1, mix_anyway=True))
    assert {one["e"] for one in tokens_of(visit.talk["turns"][0]["view"])} != {-1}, "still"
    asked = visit.run.request
    assert [one[0] for one in asked.history] == [user]
    assert (asked.prompt, asked.k) == (run.request.prompt, run.request.k)
    assert asked.abstain is None and visit.ui.entry.prompt not in visit.held, "the form stays"


def test_a_prompt_to_try_is_asked_and_leaves_what_is_typed_and_chosen(visit):
    visit.handlers.talk.forget("me")
    visit.held |= visit.handlers.on_begin_live(
        visit.request, True, SimpleNamespace(_data={"index": 3})
    )
    assert not set(visit.ui.entry.values) & set(visit.held)
    assert visit.talk["asked"] == LIVE[3].prompt
    visit.answer(Form("typed before", k=2, max_new_tokens=9, raw=True))
    asked = visit.run.request
    assert (asked.prompt, asked.k) == (LIVE[3].prompt, 2)
    assert (asked.max_new_tokens, asked.raw) == (LIVE[3].max_new_tokens, False)
    assert not set(visit.ui.entry.values) & set(visit.held)
    visit.ask("typed before")
    assert visit.run.request.prompt == "typed before"


def test_an_example_leaves_a_conversation_alone_while_it_answers(visit):
    visit.ask("one")
    visit.go_on()
    visit.ask("two")
    asked = visit.handlers.talk.begin("me")
    event = SimpleNamespace(_data={"index": 0})
    with pytest.raises(gr.Error, match="on its way"):
        visit.handlers.on_show_recorded(visit.request, event)
    with pytest.raises(gr.Error, match="on its way"):
        visit.handlers.on_begin_live(visit.request, True, event)
    assert visit.handlers.talk.earlier("me", visit.turns[0].name) is not None
    asked.ended.set()
    visit.held |= visit.handlers.on_begin_live(visit.request, True, event)
    assert visit.turns == ()


def test_an_earlier_turn_is_kept_without_the_prompt_it_was_asked_after():
    run, _, _ = ask(continued(Request("three"), TALK, drop=False))
    short = shortened(run)
    trace, whole = short.answer.trace, run.answer.trace
    assert len(trace.weights) == len(trace.tokens) == len(run.pieces) + 1 < len(whole.tokens)
    assert [*short.before, *trace.token_ids] == whole.token_ids
    np.testing.assert_array_equal(short.gates, run.gates)
    assert view_of_run(short, "x") == view_of_run(run, "x")
    again = shortened(short)
    assert again.before == short.before and again.answer.trace.tokens == trace.tokens
    bare, _, _ = ask(Request("one", trace=False))
    assert shortened(bare) is bare


def test_of_a_long_conversation_the_oldest_turns_are_text_alone(visit):
    run, _, _ = ask(Request("one"))
    for number in range(MAX_TURNS + 2):
        visit.handlers.talk.keep("me", str(number), run)
    kept = [visit.handlers.talk.earlier("me", str(n)) for n in range(MAX_TURNS + 2)]
    assert kept[:2] == [None, None] and all(isinstance(one, Run) for one in kept[2:])
    turn = turn_of(run, "gone")
    drawn = view_of_conversation([turn], lambda name: None, asked="two")["turns"][0]
    assert drawn["how"] == "ant, bee, cat" and drawn["beside"] is None


def test_a_form_that_cannot_be_asked_leaves_the_conversation_as_it_is(visit):
    visit.ask("one")
    visit.go_on()
    visit.ask("two", weights="half")
    assert "not numbers" in visit.notice and visit.run is None
    visit.ask("two")
    assert [turn[0] for turn in visit.run.request.history] == ["one"]
    with pytest.raises(RamoleError, match="needs the chat template"):
        continued(Request("x", raw=True), TALK, drop=False)
