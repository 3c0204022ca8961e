"""The adapters of every turn of a conversation, found on real parts: pool, encoder, a tiny base."""

from dataclasses import replace

import pytest

from ramole_core import RamoleError, Request
from tests.core.test_ramole import ASK, ramole as ramole  # noqa: F401  the fixture


def names(turn):
    return [candidate.name for candidate in turn.candidates]


CHAT = [
    ("Will it rain in Oslo?", "Yes."),
    ("How long do I boil an egg?", "Six minutes.", ["poems", "sums"]),
    ("A verse about the sea", "Waves.", []),
]


def test_every_turn_has_the_adapters_that_it_would_get_alone(ramole):
    request = Request("Multiply 5 by 6", k=2, history=CHAT, exclude=["poems"], **ASK)
    prepared = ramole.prepare([request])[0]
    first, second, third, last = prepared.turns
    assert len(prepared.prompt.parts) == 4
    alone = Request("Will it rain in Oslo?", k=2, exclude=["poems"], **ASK)
    assert names(first) == names(ramole.prepare([alone])[0].turns[-1])
    assert names(first)[0] == "weather" and "poems" not in names(first)
    assert names(second) == ["poems", "sums"], "a turn may have what is excluded now"
    assert names(third) == [] and third.request.method == "base"
    assert names(last)[0] == "sums" and last.request.method == "ramole_plus"
    assert prepared.candidates == last.candidates
    assert [c.name for c in ramole.candidates([request])[0]] == names(last)


def test_a_chat_says_which_turn_has_lost_its_adapter(ramole):
    talk = [CHAT[0], ("And here?", "No.", ["was-removed"])]
    with pytest.raises(RamoleError, match="Turn 2 .* answered by 'was-removed', which is not in"):
        ramole.generate([Request("Then?", history=talk, **ASK)])


def test_a_chat_goes_on_after_a_method_with_adapters_of_its_own(ramole):
    (first,) = ramole.generate([Request("Will it rain in Oslo?", method="llava_mole", **ASK)])
    assert first.adapters and not {*first.adapters} & {card.name for card in ramole.pool.cards()}
    talk = [("Will it rain in Oslo?", first.text, first.adapters)]
    for method in ("llava_mole", "mixture"):
        (then,) = ramole.generate([Request("And here?", method, history=talk, **ASK)])
        assert then.new_tokens == 5
    (mixed,) = ramole.generate([Request("Will it rain in Oslo?", method="mixture", **ASK)])
    talk = [("Will it rain in Oslo?", mixed.text, mixed.adapters)]
    (own,) = ramole.generate([Request("And here?", method="llava_mole", history=talk, **ASK)])
    assert own.adapters == first.adapters


def test_named_adapters_and_weights_are_those_of_the_turns_that_say_nothing(ramole):
    request = Request("hello", adapters=["sums", "poems"], weights=[1.0, 2.0], history=CHAT, **ASK)
    turns = ramole.prepare([request])[0].turns
    assert [names(turn) for turn in turns] == [
        ["sums", "poems"],
        ["poems", "sums"],
        [],
        ["sums", "poems"],
    ]
    assert [turn.request.weights for turn in turns] == [(1.0, 2.0), None, None, (1.0, 2.0)]


@pytest.mark.parametrize("method", ["ramole_plus", "selection", "similarity"])
def test_each_text_of_all_turns_is_embedded_once_and_together(ramole, monkeypatch, method):
    embedded = []
    recent = ramole.retriever.recent._embed

    def embed(texts):
        embedded.append(list(texts))
        return recent(texts)

    monkeypatch.setattr(ramole.retriever.recent, "_embed", embed)
    prefix = f"{method} "
    talk = [(prefix + "one", "a"), (prefix + "two", "b"), (prefix + "one", "c")]
    requests = [
        Request(prefix + last, history=talk, method=method, **ASK)
        for last in ("three", "four", "two")
    ]
    ramole.prepare(requests)
    assert embedded == [[prefix + word for word in ("one", "two", "three", "four")]]


def test_what_examines_reads_each_turn_by_itself(ramole):
    """A turn gets what it got when it was asked, whatever was said before it."""
    first = Request("Is it going to rain?", method="ramole_plus", k=2, system="Be brief.", **ASK)
    alone = ramole.prepare([first, replace(first, prompt="A verse on rain")])
    both = replace(first, prompt="A verse on rain", history=[(first.prompt, "Yes.")])
    turns = ramole.prepare([both])[0].turns
    for turn, one in zip(turns, alone, strict=True):
        assert names(turn) == [c.name for c in one.candidates]
        assert [c.activation_z for c in turn.candidates] == [c.activation_z for c in one.candidates]


def test_turns_that_were_dropped_get_no_adapters(ramole):
    long = [("Will it rain in Oslo?" * 4, "Yes." * 80), *CHAT[1:]]
    request = Request("Multiply 5 by 6", history=long, drop_turns=True, max_new_tokens=20)
    prepared = ramole.prepare([request])[0]
    assert prepared.prompt.dropped == 1
    assert [turn.request.prompt for turn in prepared.turns] == [
        "How long do I boil an egg?",
        "A verse about the sea",
        "Multiply 5 by 6",
    ]
    with pytest.raises(RamoleError, match="in 4 turns.*drop_turns=True"):
        ramole.prepare([replace(request, drop_turns=False, max_new_tokens=1)])


def test_a_bad_turn_is_a_bad_request(ramole):
    with pytest.raises(RamoleError, match="wether.*weather"):
        ramole.prepare([Request("hello", history=[("a", "b", ["wether"])], **ASK)])
    with pytest.raises(RamoleError, match="mixes no adapters"):
        ramole.prepare([Request("hello", method="base", history=[("a", "b", ["sums"])], **ASK)])
