"""Draft tokens: what is expected of an answer that copies, and that no bit hangs on them."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from ramole_core import Request
from ramole_core.composition import METHODS
from ramole_core.engine import draft
from ramole_core.engine.decoding import spell_token
from ramole_core.engine.draft import COSTS, MAX_GAINS, Draft, DraftGain, DraftGains
from ramole_core.engine.draft_sources import Copies, Words, run_of, words_of
from ramole_core.engine.scheduler import Scheduler
from ramole_core.kernels.ways import DOTS, TILES
from tests.laws.test_segments import of
from tests.support.tiny_engine import TinyEngine

WORDS = "the boat of anna is red , and it lies in the old port . The Boat Red Anna ! x y z".split()
IDS = {word: n for n, word in enumerate(dict.fromkeys(WORDS))}
NAMES = ("ant", "bee", "cat")


def ids(text: str) -> list[int]:
    return [IDS[word] for word in text.split()]


def drafted(prompt: str, gain: DraftGain | None = None) -> Draft:
    return Draft(Copies(ids(prompt), list(IDS).__getitem__), gain or DraftGain(COSTS[DOTS]))


def expected(made: Draft, said: str) -> str:
    """What is expected behind these words of the answer."""
    for token in ids(said):
        made.push(token)
    return " ".join(list(IDS)[token] for token in made.ahead)


# --- what is expected -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "comes"),
    [
        ("the", "old port ."),  # the newest place of one word
        ("The Boat", "of anna is"),  # in another case
        ("the boat of Anna", "is red ,"),  # where a token was changed
        ("the boat of anna is ! red", ", and it"),  # where one was inserted
        ("the boat of anna is red and", "it lies in"),  # where one was left out
        ("!", ""),
        ("the boat x y", "of anna is"),  # two others
        ("the boat x y z", ""),  # too many
    ],
)
def test_what_comes_is_copied_from_where_the_answer_is(said, comes):
    prompt = "the boat of anna is red , and it lies in the old port ."
    assert expected(drafted(prompt), said) == comes


def test_an_answer_copies_from_itself_too():
    assert expected(drafted("!"), "red and old . red") == "and old ."


PLAIN = ["this", "is", "at", "est", "a", "test", "of", "the", "words", "t", "h", "i", "s", "."]
SPACED = [" " + word for word in ("is", "a", "test", "of", "the", "words", "at", "this")]
SPELLED = SPACED + PLAIN
LONG_RUN = "thisisatestofthewords."


def said_with_spaces(said: str) -> str:
    """What is expected behind these tokens of an answer, `|` between them."""
    prices = {word: (PLAIN.index(word) + len(SPACED), 9.0) for word in PLAIN}
    prices |= {word[1:]: (n, 5.0) for n, word in enumerate(SPACED)}
    source = Words(LONG_RUN, SPELLED.__getitem__, prices)
    for token in filter(None, said.split("|")):
        source.read(SPELLED.index(token))
    return "|".join(SPELLED[token] for token in source.ahead(4))


@pytest.mark.parametrize(
    ("said", "comes"),
    [
        ("this", " is| a| test| of"),
        ("this| is| a", " test| of| the| words"),
        ("this| is| at", "est| of| the| words"),  # cut elsewhere
        ("this|.| a", " is| a| test| of"),  # another token, and one too short to be looked for
        ("this|.| test", " of| the| words|."),  # one that was left out
        ("this| is| a| this", " is| a| test| of"),  # said again
        ("this| is| a| test| of| the| words", "."),
        ("this| is| a| test| of| the| words|.", ""),
    ],
)
def test_the_words_of_a_run_without_spaces_come_next(said, comes):
    assert said_with_spaces(said) == comes


def test_a_run_without_spaces_is_longer_than_words_are():
    assert run_of("Put the spaces back: " + LONG_RUN + "ontheleft and go") == LONG_RUN + "ontheleft"
    assert run_of("An incomprehensible sentence, not a run. 这是一个没有空格的句子" * 3) == ""


def test_the_real_vocabulary_cuts_a_run_into_words(real_base_folder):
    tokenizer = AutoTokenizer.from_pretrained(real_base_folder)
    text = "We waited at the harbour until the last ferry had left"
    run, spelled = text.replace(" ", ""), partial(spell_token, tokenizer)
    source = Words(run, spelled, words_of(tokenizer))
    first, *others = tokenizer.encode(text)
    source.read(first)
    assert source.ahead(7) == others[:7]


def test_a_gain_counts_the_steps_that_drafts_would_take():
    gain = DraftGain(COSTS[DOTS])
    made = drafted("the boat of anna is red , and", gain)
    made.source.read(*ids("the"))
    for token in ids("boat of anna is red , !"):
        made.push(token)
    kept, begun = 0.97 ** np.arange(6, -1, -1), draft.START_WEIGHT * draft.DECAY**7
    assert gain.tokens == pytest.approx(begun + kept.sum())
    # "boat" and the token behind it, ...; "boat of anna" and the token behind them, "red , !"
    assert gain.steps[1] == pytest.approx(begun + kept[[0, 2, 4, 6]].sum())
    assert gain.steps[3] == pytest.approx(begun + kept[[0, 4]].sum())
    assert gain.gain(0) == 1
    assert gain.gain(3) == pytest.approx(gain.tokens / gain.steps[3] / COSTS[DOTS][3])


def test_an_end_that_was_expected_earns_nothing():
    """An answer of two tokens takes one step, whatever is expected."""
    gains = DraftGains(DOTS)
    for _ in range(40):
        made = drafted("the boat !", gains.of("a", Copies))
        made.source.read(*ids("boat"))
        made.push(*ids("!"))
    assert made.length(99, 7) == 0


def test_drafts_are_as_many_as_gain_most_and_end_where_none_does():
    gain = DraftGain(COSTS[DOTS], 30.0, {1: 30.0, 3: 30.0})
    made = Draft(Copies([], str), gain)
    assert made.length(99, 7) == 0
    gain.steps[1] = 20.0  # 1.5 tokens a step for 1.1 of its time
    assert made.length(99, 7) == 1 and made.length(1, 7) == 0, "there is no room to feed one"
    gain.steps[3] = 10.0  # 3 for 1.32
    assert made.length(99, 7) == 3 and made.length(3, 7) == 0
    gain.steps = {1: 19.5, 3: 16.0}  # 1.40 and 1.42: it stays
    assert made.length(99, 7) == 3
    gain.steps = {1: 20.0, 3: 10.0}
    assert [made.length(99, most) for most in (7, 2, 7)] == [3, 1, 3], "others are beside it"
    gain.steps = {1: 29.0, 3: 29.0}
    assert made.length(99, 7) == 0


def test_where_fewer_are_expected_a_step_keeps_its_size():
    made = drafted("the boat")
    assert expected(made, "the") == "boat the"
    assert made.tokens(3) == ids("boat the the") and made.tokens(1) == ids("boat")


def test_gains_are_of_the_first_adapter_and_no_more_than_so_many():
    gains = DraftGains(DOTS)
    gains.of("a", Copies).tokens = 99.0
    for n in range(MAX_GAINS - 1):
        gains.of(str(n), Copies)
    assert gains.of("a", Copies).tokens == 99, "it was used last"
    for n in range(MAX_GAINS):
        gains.of(str(n), Copies)
    assert gains.of("a", Copies).tokens == draft.START_WEIGHT


# --- no bit hangs on them -------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["float32", "int4"])
def tiny(request, tiny_llama, tiny_nf4):
    made = TinyEngine(tiny_nf4 if request.param == "int4" else tiny_llama, kind=request.param)
    yield made
    made.engine.close()


@pytest.fixture(params=[1, 3, 7])
def always(monkeypatch, request, tiny):
    """So many a step, whatever they gain."""
    monkeypatch.setattr(tiny.engine.scheduler, "_draft_gains", DraftGains(TILES))
    monkeypatch.setattr(
        DraftGain, "gain", lambda self, count: 9.0 if count == request.param else 0.1
    )
    return request.param


def answers(tiny: TinyEngine, requests, names, *, drafts: bool):
    """What comes of each."""
    scheduler = tiny.engine.scheduler
    tiny.engine.forget_prefixes()
    before = scheduler.sizes
    scheduler.sizes = replace(before, draft_rows=before.draft_rows if drafts else 0)
    try:
        return tiny.run(*((request, of(names)) for request in requests))
    finally:
        scheduler.sizes = before
        assert scheduler.idle and not tiny.engine._kv.held_bytes


def agree(tiny: TinyEngine, requests, names=NAMES, *, fed: bool = True) -> int:
    """The answers are the same to the bit with drafts, of which some were `fed`; returns how many
    were accepted."""
    plain = answers(tiny, requests, names, drafts=False)
    before = tiny.engine.stats()
    drafted = answers(tiny, requests, names, drafts=True)
    after = tiny.engine.stats()
    assert after["draft_tokens"] > before["draft_tokens"] or not fed
    for one, other in zip(plain, drafted, strict=True):
        assert other.tokens == one.tokens
        assert torch.equal(torch.stack(one.logits), torch.stack(other.logits))
        assert [s.text for s in other.steps] == [s.text for s in one.steps]
        assert other.answer.text == one.answer.text
        assert other.answer.finish_reason == one.answer.finish_reason
        if (a := one.answer.trace) is not None and (b := other.answer.trace) is not None:
            assert a.token_ids == b.token_ids
            for name in ("weights", "contribution", "present"):
                np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    return int(after["accepted_tokens"] - before["accepted_tokens"])


LONG = {"max_new_tokens": 40, "ignore_eos": True}


@pytest.mark.parametrize("method", ["base", "mixture", "ramole", "ramole_plus", "ties", "mole"])
def test_an_answer_is_the_same_to_the_bit(tiny, always, method):
    names = NAMES[: METHODS[method].experts(3)]
    agree(tiny, [Request("Count to ten", method=method, **LONG)], names)


MORE = {
    "sampled": {"temperature": 0.9, "top_p": 0.8, "seed": 3},
    "penalised": {"repetition_penalty": 1.2, "temperature": 0.5, "seed": 5},
    "ends": {"ignore_eos": False, "stop": ("e",), "temperature": 1.0, "seed": 1},
    "given": {"prefix_ids": (5, 9, 30), "effects": True},
    "switched": {"without": (("bee", 1, None, 20), ("cat", None, None)), "method": "mixture"},
    "weighed": {"later_weights": {"ant": 0.5}, "prefix_ids": (5, 9)},
    "json": {"json_schema": {"type": "array"}, "ignore_eos": False, "temperature": 1.0, "seed": 2},
    "untraced": {"trace": False, "logprobs": 2},
}


@pytest.mark.parametrize("name", MORE)
def test_whatever_is_asked(tiny, always, name):
    requests = [Request("Count to ten", **{"method": "ramole", **LONG, **MORE[name]})]
    agree(tiny, requests)


def test_beside_another_and_not_beside_many(tiny, always, monkeypatch):
    drafted, seen = Scheduler._drafted, []

    def watched(self, state, rows):
        seen.append((rows, len(found := drafted(self, state, rows))))
        return found

    monkeypatch.setattr(Scheduler, "_drafted", watched)
    for n in (1, 2, 3):  # three requests of four rows each are more than a step has
        wanted = [Request(f"Count to {m}", method="ramole", **LONG) for m in range(n)]
        agree(tiny, wanted, fed=n * (1 + always) <= 8)
    two = always if always <= 3 else 0
    assert {(1, always), (2, two), (3, 0)} <= set(seen) and (3, always) not in seen


def test_an_answer_that_repeats_itself_takes_fewer_steps(tiny):
    """A tiny model's greedy answers do, so that a gain grows without being forced."""
    request = Request("Count to ten", method="mixture", **LONG | {"max_new_tokens": 160})
    for gain in ("made", "known"):
        before = tiny.engine.stats()
        accepted = agree(tiny, [request])
        steps = tiny.engine.stats()["decode_forwards"] - before["decode_forwards"]
        assert accepted > 40 and steps < 159 + 120, gain
