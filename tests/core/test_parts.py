"""A prompt that asks for several things: cut into parts, each answered by its own adapters."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, strategies as st

from ramole_core import Generation, RamoleError, Request, Step, Trace
from ramole_core.answer import parts_record
from ramole_core.base.shapes import read_shapes
from ramole_core.batch.rows import BatchRow
from ramole_core.effects import effects_record
from ramole_core.engine import reader, request_state
from ramole_core.errors import Busy
from ramole_core.selection.part_stream import join, stream_parts
from ramole_core.selection.parts import (
    BOTH_ASK,
    JOINED,
    MAX_PIECES,
    PLAIN,
    begun_anew,
    joins,
    pieces_of,
    price_of,
)
from ramole_core.terminal.console import shares_of
from tests.core.test_ramole import ASK, ramole as ramole, write_lora  # noqa: F401  a fixture
from ui.ask.answer import Live, answer
from ui.batch.run import BatchRun, RowRun, _take
from ui.openai.completion import Answered, about

EGG, SUM, RAIN = "How long do I boil an egg?", "Multiply 12 by 7.", "Will it rain in Oslo?"
BOTH = Request(f"{EGG}\n\n{SUM}", k=1, abstain=False, split=True, **(ASK | {"max_new_tokens": 12}))


def parts(ramole, prompt, **asked):
    selection = ramole.select(replace(BOTH, prompt=prompt, **asked))
    return [one.text or prompt for one in (selection, *selection.later)]


def test_each_part_is_a_turn_with_its_own_adapters(ramole):
    answer = ramole.generate([BOTH])[0]
    first, second = answer.parts
    assert (first.part, first.adapters) == (EGG, ["cooking"])
    assert (second.part, second.adapters) == (SUM, ["sums"])
    assert answer.text == f"{first.text}\n\n{second.text}"
    assert answer.adapters == ["cooking", "sums"] and answer.evidence == first.evidence
    assert answer.new_tokens == first.new_tokens + second.new_tokens <= 12
    alone = ramole.generate([replace(BOTH, prompt=EGG, max_new_tokens=6)])[0]
    talk = [(EGG, alone.text, alone.adapters)]
    then = ramole.generate([replace(BOTH, prompt=SUM, history=talk, max_new_tokens=6)])[0]
    assert first.trace and second.trace and alone.trace and then.trace
    assert first.trace.token_ids == alone.trace.token_ids
    assert second.trace.token_ids == then.trace.token_ids


def test_a_later_part_has_its_adapters_when_they_are_removed_meanwhile(
    ramole, tiny_llama, tmp_path
):
    folder = write_lora(tmp_path / "a", read_shapes(tiny_llama), rank=2, seed=5)
    ramole.pool.add(folder, name="mine", examples=["zebra stripes"], owner="me")
    asked = replace(BOTH, prompt=f"{EGG}\n\nzebra stripes", method="mixture", owner="me")
    expected = ramole.generate([asked])[0]
    assert expected.parts[1].adapters == ["mine"]
    found = []
    for _, item in ramole.stream_batch([asked]):
        if isinstance(item, Step) and len(found) == 0:
            ramole.pool.remove("mine", "me")
        found.append(item)
    assert found[-1].text == expected.text


def test_one_that_is_removed_before_it_is_read_is_said_to_be(ramole, tiny_llama, tmp_path):
    folder = write_lora(tmp_path / "a", read_shapes(tiny_llama), rank=2, seed=6)
    card = ramole.pool.add(folder, name="gone", examples=["zebra stripes"], owner="me")
    named = {"adapters": ["gone"], "method": "mixture", "owner": "me"}
    (found,) = ramole.candidates([Request("zebra", **named, **ASK)])
    ramole.pool.remove("gone", "me")
    with pytest.raises(RamoleError, match=f"adapter {card.name} was removed while it was asked"):
        found[0].load()


def test_every_door_puts_a_part_s_numbers_under_its_own_adapters(ramole):
    """Adapters of all parts stand in an answer, those of its part in a token."""
    for k in (1, 3):
        items = [item for _, item in ramole.stream_batch([replace(BOTH, k=k, method="similarity")])]
        steps, answer = [one for one in items if isinstance(one, Step)], items[-1]
        sums = dict.fromkeys(answer.adapters, 0.0)
        for step in steps:
            for name, share in zip(step.adapters, step.shares, strict=True):
                sums[name] += float(share) / len(steps)
        told = about(Answered(answer, BOTH, steps))["adapters"]
        assert {one["name"]: one["share"] for one in told} == pytest.approx(sums, abs=1e-3)
        row = RowRun(BatchRow(0, 1, BOTH))
        for item in items:
            _take(BatchRun([row]), row, item)
        assert dict(zip(row.experts, row.shares, strict=True)) == pytest.approx(sums, abs=1e-3)


def test_a_part_that_ends_as_a_turn_does_is_no_stop_of_the_caller(ramole, monkeypatch):
    """Of a base without a chat template, whose turns end where the user's next one begins."""
    asked = replace(BOTH, logit_bias={64: 50.0})
    for module in (reader, request_state):
        monkeypatch.setattr(module, "turn_end_of", lambda tokenizer, raw: "aaa")
    answer = ramole.generate([asked])[0]
    assert len(answer.parts) == 2 and answer.finish_reason == "eos"
    stopped = ramole.generate([replace(asked, stop=("aa",))])[0]
    assert len(stopped.parts) == 1 and stopped.finish_reason == "stop"


def test_what_is_removed_meanwhile_is_still_searched_and_measured(ramole, tiny_llama, tmp_path):
    named = {"adapters": ["late", "poems"], "effects": True}
    for n, method in enumerate(("mixture", "lorahub")):
        folder = write_lora(tmp_path / method, read_shapes(tiny_llama), rank=2, seed=70 + n)
        ramole.pool.add(folder, name="late", examples=["late"])
        fits = {"examples": [("one", "two")], "options": {"steps": 4}}
        asked = Request(SUM, method=method, **named, **ASK, **(fits if method == "lorahub" else {}))
        gone = []

        def remove(*_, gone=gone):
            if not gone:
                gone.append(ramole.pool.remove("late"))

        for _, found in ramole.stream_batch([asked], fitting=remove):
            remove()
            item = found
        assert item.adapters == ["late", "poems"] and item.effects is not None, method


def test_no_prompt_is_cut_into_more_parts_than_tokens(ramole):
    answer = ramole.generate([replace(BOTH, max_new_tokens=1)])[0]
    assert answer.new_tokens == 1 and not answer.parts
    five = ramole.generate([replace(BOTH, max_new_tokens=5)])[0]
    assert [part.new_tokens for part in five.parts] == [3, 2]


def test_an_answer_in_parts_is_explained_part_by_part(ramole):
    answer = ramole.generate([BOTH])[0]
    with pytest.raises(RamoleError, match="explain one part by its own prompt"):
        ramole.explain(BOTH, answer.trace.prompt_length, token_ids=answer.trace.token_ids)
    measured = ramole.generate([replace(BOTH, effects=True, k=3)])[0]
    assert effects_record(measured)["effects_by"] == "shapley" and len(measured.adapters) > 3


def test_steps_say_their_part_and_one_selection_says_all(ramole):
    told = []
    items = list(ramole.stream_batch([BOTH], selected=lambda n, one: told.append(one)))
    steps = [item for _, item in items if isinstance(item, Step)]
    answer = items[-1][1]
    assert isinstance(answer, Generation) and len(answer.parts) == 2
    assert "".join(step.text for step in steps) == answer.text
    assert [step.part for step in steps] == sorted(step.part for step in steps)
    assert {step.adapters for step in steps if step.part} == {("sums",)}
    (selection,) = told
    assert selection.adapters == ("cooking",)
    assert [one.adapters for one in selection.later] == [("sums",)]


def test_a_prompt_is_cut_where_its_parts_find_different_adapters(ramole, monkeypatch):
    assert parts(ramole, BOTH.prompt) == [EGG, SUM]
    assert parts(ramole, f"{RAIN} {SUM}\n{EGG}") == [RAIN, SUM, EGG]
    assert parts(ramole, f"{EGG} Also, {SUM}\nAnd then: {RAIN}") == [EGG, SUM, RAIN]
    for text in (f"\n{EGG} {SUM}", f"{EGG}\r\n\r\n{SUM}", f"{EGG}\n \n{SUM}\n"):
        assert parts(ramole, text) == [EGG, SUM], "blanks are of the piece beside"
    assert parts(ramole, BOTH.prompt, split=None) == [BOTH.prompt], "not fitted for this encoder"
    monkeypatch.setattr(type(ramole.base_expert), "calibrated", True)
    assert parts(ramole, BOTH.prompt, split=None) == [EGG, SUM]
    for whole in (EGG, f"{EGG} A recipe for onion soup. Season a roast chicken."):
        assert parts(ramole, whole) == [whole]
    assert parts(ramole, BOTH.prompt, split=False) == [BOTH.prompt]
    assert parts(ramole, BOTH.prompt, method="mixture", split=None) == [BOTH.prompt]
    assert parts(ramole, BOTH.prompt, method="mixture", split=True) == [EGG, SUM]
    assert parts(ramole, BOTH.prompt, adapters=["poems"], split=None, abstain=None) == [BOTH.prompt]


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("Also, sort them.", "sort them."),
        ("And then: what is 3 plus 4?", "what is 3 plus 4?"),
        ("I would also like to know: is it warm?", "is it warm?"),
        ("Could you also rhyme it?", "Could you also rhyme it?"),
        ("Then", "Then"),
        ("Second, is it warm?", "is it warm?"),
        *((text, None) for text in ("And then?", "Next week it rains.", "Second-hand cars?")),
        *((text, None) for text in ("Second World War?", "Plus-size coats", "Thenar muscles")),
    ],
)
def test_a_part_begins_behind_its_joining_words(text, rest):
    """None: the words are no joining ones."""
    assert begun_anew(text) == (text if rest is None else rest)
    assert joins(text) == (rest is not None)


@pytest.mark.parametrize(
    ("before", "after", "price"),
    [
        (EGG, SUM, BOTH_ASK),
        (EGG, "regex pls, lines without a cat", BOTH_ASK),
        (EGG, "My aunt lives in Oslo.", PLAIN),
        ("My aunt lives in Oslo.", EGG, PLAIN),
        ("My aunt lives in Oslo.", f"Besides, {EGG}", JOINED),
    ],
)
def test_a_cut_costs_less_where_another_request_begins(before, after, price):
    assert price_of(before, after, form=False) == price <= PLAIN
    assert price_of(before, after, form=True) == PLAIN


@pytest.mark.parametrize(
    "said",
    [{"adapters": ["poems"]}, {"json_schema": {}}, {"prefix_ids": [4]}, {"raw": True}],
    ids=lambda said: next(iter(said)),
)
def test_what_holds_for_the_whole_prompt_forbids_parts(ramole, monkeypatch, said):
    with pytest.raises(RamoleError, match=f"each part of the prompt, but {next(iter(said))} came"):
        Request(BOTH.prompt, split=True, **said)
    monkeypatch.setattr(type(ramole.base_expert), "calibrated", True)
    said = {"split": None, "abstain": None, "ignore_eos": False, **said}
    assert parts(ramole, BOTH.prompt, **said) == [BOTH.prompt]


@given(st.text(alphabet="ab .?!\n\r\"'", max_size=80))
def test_pieces_are_the_text(text):
    found = pieces_of(text)
    assert "".join(found) == text and len(found) <= MAX_PIECES
    assert all(piece.strip() for piece in found) or len(found) == 1


def test_very_many_lines_are_joined_before_the_shortest_are_looked_for():
    found = pieces_of("a\n" * 50_000)
    assert "".join(found) == "a\n" * 50_000 and len(found) == MAX_PIECES


@pytest.mark.parametrize(
    "text", ["this " * 20_000 + "end. Next one.", "Fix these lines\n" + "word word word\n" * 6_500]
)
def test_what_is_announced_is_looked_for_once_however_long_it_is(text):
    """The engine's threads wait for a regular expression; one that looks again at each
    line holds them up for as long as that takes."""
    assert "".join(pieces_of(text)) == text
    assert pieces_of(text)[0] == (text if "\n" in text else text.removesuffix("Next one."))


def test_no_prompt_in_parts_gets_more_tokens_than_the_server_gives(ramole):
    with pytest.raises(RamoleError, match="max_new_tokens=60, but this server gives at most 40"):
        ramole.generate([replace(BOTH, max_new_tokens=60)])


def test_a_listed_adapter_is_left_out_of_a_prompt_in_parts_too(ramole):
    """Refused, if it is unknown, by who finds adapters: not before it is known to be listed."""
    asked = replace(BOTH, exclude=["poems", "nobody/knows"])
    assert ramole.parts(asked) == (f"{EGG}", SUM)
    with pytest.raises(RamoleError, match="exclude names 'nobody/knows'"):
        ramole.generate([asked])


def made(text, reason="eos", tokens=2, part=""):
    return Generation(text, [], [], None, reason, 1, tokens, 0.5, 0.1, part=part)


class Asked:
    """What `stream_parts` reads of a prepared request."""

    def __init__(self, *texts, room=1):
        self.text, self.later, self.room = texts[0], texts[1:], room


@pytest.mark.parametrize(
    ("reason", "room", "parts"),
    [("eos", 3, 3), ("length", 3, 3), ("stop", 3, 1), ("cancelled", 3, 1), ("eos", 2, 2)],
)
def test_parts_go_on_while_there_is_room_and_nothing_ended_the_answer(reason, room, parts):
    def run(indexes, running):
        for place, one in enumerate(running):
            yield place, Step(0, one.text, None)
            yield place, made(one.text, reason, part=one.text)

    def follow(one, answer):
        if one.room == 1:
            raise RamoleError("The answers before it have filled the context.")
        return Asked(*one.later, room=one.room - 1)

    asked = [Asked("a", "b", "c", room=room), Asked("x")]
    items = list(stream_parts(asked, run=run, follow=follow))
    answers = {n: item for n, item in items if isinstance(item, Generation)}
    assert answers[1].text == "x" and len(answers[0].parts) == parts
    assert answers[0].finish_reason == ("length" if room == 2 else reason)
    left = [note for note in answers[0].notes if note.endswith("that were not answered: 1.")]
    assert len(left) == (room == 2)
    assert answers[0].text == "\n\n".join("abc"[:parts])
    said = "".join(item.text for n, item in items if n == 0 and isinstance(item, Step))
    assert said == answers[0].text


def test_a_part_that_was_stopped_before_its_first_token_leaves_the_trace_of_those_before():
    trace = Trace(["a"], [1], 1, ["ant"], [0], ["q"], np.ones((1, 1, 1, 1), np.float16))
    first = replace(made("a", part="one"), adapters=["ant"], scores=[0.5], trace=trace)
    ends = {"one": first, "two": made("", "cancelled", tokens=0, part="two")}

    def run(indexes, running):
        for place, one in enumerate(running):
            yield place, ends[one.text]

    asked = [Asked("one", "two")]
    ((_, answer),) = stream_parts(asked, run=run, follow=lambda one, _: Asked(*one.later))
    assert answer.finish_reason == "cancelled" and answer.text == "a"
    assert answer.trace is trace and [part.text for part in answer.parts] == ["a"]


def test_a_stopped_answer_keeps_the_mixing_of_the_part_that_was_there(ramole):
    steps = []
    for _, item in ramole.stream_batch([BOTH], cancelled=lambda: len(steps) >= 6):
        steps.append(item)
    answer = steps.pop()
    assert answer.finish_reason == "cancelled" and len(steps) == answer.new_tokens == 6
    assert answer.adapters == answer.trace.adapters == ["cooking"]
    assert answer.trace.token_ids[-6:] == [step.token for step in steps]
    assert answer.trace.weights[answer.trace.prompt_length :][:-1].any()


@pytest.mark.parametrize("busy", [False, True])
def test_a_fault_ends_its_own_answer_and_loses_no_part_that_was_there(busy):
    def run(indexes, running):
        if busy and running[0].text == "b":
            raise Busy("The server is busy; try again in a moment.")
        for place, one in enumerate(running):
            if one.text not in ("b", "z"):
                yield place, Step(0, one.text, None)
                yield place, made(one.text, part=one.text)
        if {one.text for one in running} & {"b", "z"}:
            raise RamoleError("Too large a weight.")

    def answered(*asked):
        found = {}
        for n, item in stream_parts(
            [*asked], run=run, follow=lambda one, answer: Asked(*one.later)
        ):
            if isinstance(item, Generation):
                found[n] = item
        return found

    found = answered(Asked("a", "b", "c"), Asked("x", "y"))
    assert found[0].text == "a" and found[0].finish_reason == "length"
    why = "The server is busy" if busy else "Too large a weight"
    assert found[0].notes[-1].startswith(why) and found[0].notes[-1].endswith("answered: 2.")
    assert found[1].text == ("x" if busy else "x\n\ny")
    told = []
    with pytest.raises(RamoleError, match="Too large"):
        for _, item in stream_parts(
            [Asked("x", "y"), Asked("z")], run=run, follow=lambda one, answer: Asked(*one.later)
        ):
            told.append(item)
    assert told[-1].text == "x\n\ny", "another's first part has failed"


def test_no_part_brings_back_turns_that_were_dropped(ramole, monkeypatch):
    """Answers of many tokens and little text make room in the context again."""
    preparing = ramole._preparation
    parts = SimpleNamespace(
        of=lambda request: ("one?", "two?", "three?") if request.split is None else ()
    )
    monkeypatch.setattr(preparing, "_parts", parts)
    dropped = set()
    monkeypatch.setattr(preparing._selector, "_max_new_tokens", 150)
    for length in range(44, 100, 2):
        talk = [("uuu", "a" * length, ())] * 4
        asked = Request("one two three", history=talk, method="base", drop_turns=True)
        asked = replace(asked, ignore_eos=True, max_new_tokens=150)
        try:
            (first,) = ramole.prepare([asked])
            answer = replace(made("", "length", tokens=1))
            second = preparing.follow(first, answer, ramole.engines)
            answer = replace(answer, new_tokens=second.prompt.room)
            third = preparing.follow(second, answer, ramole.engines)
        except RamoleError:
            continue
        assert len(third.turns) == len(third.prompt.parts) <= len(second.turns) + 1
        dropped.add(first.prompt.dropped)
    assert len(dropped) > 1


def test_parts_are_joined_as_they_ended():
    first, second = made("a", "length", part="one"), made("b", "eos", part="two")
    assert join([first, second]).finish_reason == "length", "one was cut"
    assert join([second, first]).finish_reason == "length"
    assert join([first, made("b", "stop", part="two")]).finish_reason == "stop"
    one = made("a")
    assert join([one]) is one


def test_the_page_shows_the_parts_as_turns_of_a_conversation(ramole):
    live = Live()
    *_, last = answer(ramole, replace(BOTH, trace=True), live, beside=False)
    assert last.run is live.run and live.run is not None
    (first,) = live.earlier
    assert (first.request.prompt, live.run.request.prompt) == (EGG, SUM)
    assert live.run.request.history[0][:2] == (EGG, first.answer.text)
    for run in (first, live.run):
        assert "".join(run.pieces) == run.answer.text and len(run.shares) == len(run.pieces)
        assert [one.name for one in run.found] == run.answer.adapters


def test_effects_of_the_parts_stand_under_the_names_of_all(ramole):
    whole = ramole.generate([replace(BOTH, effects=True)])[0]
    assert whole.effects is not None and whole.logprob is not None
    assert whole.effects.shape == (whole.new_tokens, 2) and len(whole.logprob) == whole.new_tokens
    n = whole.parts[0].new_tokens
    assert (whole.effects[:n, 1] == 0).all() and (whole.effects[n:, 0] == 0).all()
    told = parts_record(whole)
    assert [one["prompt"] for one in told] == [EGG, SUM]
    assert sum(shares_of(whole)) <= 1.001


@pytest.mark.parametrize(
    "pieces",
    [
        ["A lake in the hills\n", "Is this clickbait?\nOPTIONS:\n- no\n- yes"],
        ["Which one fits?\n- one\n- another\n\n", "Fix the capital letters: i live here"],
        ["Is this spam?\nCongratulations, you have won a cruise"],
        ["- Fix the capital letters: i live here\n", "- Translate into Spanish: the sea"],
    ],
)
def test_options_and_what_a_question_announces_are_no_piece_of_their_own(pieces):
    assert pieces_of("".join(pieces)) == pieces
