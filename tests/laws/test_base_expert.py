"""The base is an expert too: it answers where nothing fits, and a follow-up keeps its adapters."""

from dataclasses import replace

import numpy as np
import pytest

from ramole_core import Ramole, RamoleError, Request
from ramole_core.methods import METHOD_LIST, find_row
from ramole_core.retrieval import BaseExpert, Hit
from ramole_core.retrieval.calibration import (
    FILE,
    Calibration,
    FollowUpLine,
    ResponseLine,
    SimilarityLine,
    read_calibration,
)
from ramole_core.retrieval.own_cards import GOING_ON, cards_checksum, everyday_texts
from ramole_core.selection.selector import by_depth
from tests.conftest import tiny_settings
from tests.core.test_ramole import ASK, ramole as ramole  # noqa: F401  the fixture
from tests.support.few_prompts import few_reference_prompts  # noqa: F401  a fixture

PLUS = "ramole_plus"
NOTHING = "I feel overwhelmed by my boss. How do people cope?"
RAIN = "Will it rain in Bergen?"


def alone(ramole, prompt, **asked):  # noqa: F811
    return ramole.generate([Request(prompt, **asked, **ASK)])[0]


# --- who answers ----------------------------------------------------------------------------------


def test_where_nothing_fits_the_answer_is_the_base_s_token_for_token(ramole):  # noqa: F811
    base = alone(ramole, NOTHING, method="base", temperature=0.8, seed=3)
    ours = alone(ramole, NOTHING, method=PLUS, temperature=0.8, seed=3)
    mixed = alone(ramole, NOTHING, method=PLUS, temperature=0.8, seed=3, abstain=False)
    assert mixed.trace.token_ids != base.trace.token_ids, "the adapters of this pool are loud"
    assert ours.trace.token_ids == base.trace.token_ids
    assert ours.adapters == [] and ours.scores == [] and ours.trace.weights.shape[-1] == 0
    evidence = ours.evidence
    assert evidence.decision == "base" and evidence.nearest in ("weather", "cooking", "poems")
    assert evidence.similarity < evidence.threshold
    assert evidence.similarity == pytest.approx(ramole.retrieve(NOTHING, k=1)[0].score, abs=1e-6)
    assert evidence.sentence.startswith("No adapter fits, so the base model answers alone: ")
    assert f"{evidence.similarity:.2f}" in evidence.sentence
    assert evidence.record()["sentence"] == evidence.sentence
    assert mixed.evidence is None and len(mixed.adapters) == 3


def test_where_one_fits_nothing_changes_but_what_is_told(ramole):  # noqa: F811
    ours, mixed = (alone(ramole, RAIN, method=PLUS, abstain=said) for said in (None, False))
    assert ours.evidence.decision == "adapters" and ours.adapters[0] == "weather"
    assert (ours.text, ours.adapters, ours.scores) == (mixed.text, mixed.adapters, mixed.scores)
    assert np.array_equal(ours.trace.weights, mixed.trace.weights)


def test_published_methods_leave_it_to_the_base_only_when_asked(ramole):  # noqa: F811
    assert [row.name for row in METHOD_LIST if row.abstains] == [PLUS]
    for method in ("ramole", "selection", "similarity", "mixture"):
        plain = alone(ramole, NOTHING, method=method)
        assert plain.adapters and plain.evidence is None
        asked = alone(ramole, NOTHING, method=method, abstain=True)
        assert asked.adapters == [] and asked.evidence.decision == "base"
        assert asked.trace.token_ids == alone(ramole, NOTHING, method="base").trace.token_ids


def test_named_adapters_answer_whatever_is_asked(ramole):  # noqa: F811
    answer = alone(ramole, NOTHING, method=PLUS, adapters=["sums"])
    assert answer.adapters == ["sums"] and answer.evidence is None
    with pytest.raises(RamoleError, match="abstain=True, but adapters are named"):
        Request("hello", adapters=["sums"], abstain=True)


def test_earlier_turns_go_to_the_base_too_and_named_ones_never(ramole):  # noqa: F811
    history = [(NOTHING, "Well."), (NOTHING, "Well.", ["sums"]), (RAIN, "No.")]
    turns = ramole.prepare([Request("A recipe for soup", method=PLUS, history=history, **ASK)])
    found = [(t.request.method, [c.name for c in t.candidates][:1]) for t in turns[0].turns]
    assert found == [("base", []), (PLUS, ["sums"]), (PLUS, ["weather"]), (PLUS, ["cooking"])]
    asked = Request("A recipe for soup", method="mixture", history=history, abstain=True, **ASK)
    methods = [turn.request.method for turn in ramole.prepare([asked])[0].turns]
    assert methods == ["base", "mixture", "mixture", "mixture"]


def test_an_empty_pool_answers_as_the_base(tiny_llama, tmp_path):
    settings = tiny_settings(tiny_llama, tmp_path)
    with Ramole(settings) as empty:
        answer = alone(empty, "hello", method=PLUS)
        assert answer.trace.token_ids == alone(empty, "hello", method="base").trace.token_ids
        assert answer.evidence.sentence == "The pool is empty, so the base model answers alone."
        for asked in ({"method": "mixture"}, {"method": PLUS, "abstain": False}):
            with pytest.raises(RamoleError, match="The pool is empty"):
                alone(empty, "hello", **asked)


def test_where_all_adapters_are_excluded_it_is_an_error_still(ramole):  # noqa: F811
    names = [card.name for card in ramole.pool.cards()]
    with pytest.raises(RamoleError, match="exclude names all 4 adapters"):
        alone(ramole, "hello", method=PLUS, exclude=names)


# --- the turn before ------------------------------------------------------------------------------


@pytest.fixture
def keen(ramole, monkeypatch):  # noqa: F811
    """The fixture's encoder is not tuned: thresholds that suit it."""
    plain = ramole.base_expert.calibration
    lines = replace(plain, kept=FollowUpLine(threshold=0.4), alone=SimilarityLine(threshold=0.05))
    for name in ("calibration", "_fitted"):
        monkeypatch.setitem(ramole.base_expert.__dict__, name, lines)
    return ramole


def test_a_follow_up_keeps_the_adapters_of_the_turn_before(keen):
    chat = Request("and this one: it was late", method=PLUS, history=[(RAIN, "No.")], **ASK)
    first, second = keen.prepare([chat])[0].turns
    assert first.candidates[0].name == "weather"
    assert second.candidates == first.candidates, "with their scores and responses"
    answer = keen.generate([chat])[0]
    assert answer.evidence.decision == "kept" and answer.evidence.leader == "weather"
    answer_scores = [one.score for one in first.candidates]
    assert answer.scores == answer_scores
    assert "the adapters of the turn before answer, weather first" in answer.evidence.sentence
    named = [(RAIN, "No.", ["sums", "poems"])]
    answer = keen.generate([replace(chat, history=named)])[0]
    assert answer.adapters == ["sums", "poems"] and answer.evidence.leader == "sums"
    third = replace(chat, history=[(RAIN, "No."), ("and this?", "Yes.")])
    scores = [one.score for one in keen.candidates([third])[0]]
    assert scores == answer_scores, "kept twice"


def test_a_message_with_a_task_of_its_own_is_found_anew(keen):
    chat = Request("Multiply 5 by 6", method=PLUS, history=[(RAIN, "No.")], **ASK)
    answer = keen.generate([chat])[0]
    assert answer.adapters[0] == "sums" and answer.evidence.decision == "adapters"


def test_nothing_is_kept_of_a_base_turn_nor_by_published_methods_nor_what_is_excluded(keen):
    text = "and this one: it was late"
    for asked in (
        {"method": PLUS, "history": [("hello", "Hi.", [])]},
        {"method": "similarity", "history": [(RAIN, "No.")]},
        {"method": PLUS, "history": [(RAIN, "No.", ["weather"])], "exclude": ["weather"]},
    ):
        found = keen.select(Request(text, **asked, **ASK))
        assert found.evidence is None or found.evidence.decision != "kept", asked
    assert [row.name for row in METHOD_LIST if row.keeps_turn] == [PLUS]
    assert find_row(PLUS).keeps_turn


def test_conversations_of_one_batch_do_not_mix(keen):
    text = "and this one: it was late"
    chats = [
        Request(text, method=PLUS, history=[(RAIN, "No.")], **ASK),
        Request("Multiply 5 by 6", method=PLUS, **ASK),
        Request(text, method=PLUS, history=[("Subtract nine from ten", "1")], **ASK),
    ]
    together = [found[0].name for found in keen.candidates(chats)]
    assert together == [keen.candidates([chat])[0][0].name for chat in chats]
    assert together == ["weather", "sums", "sums"]
    assert by_depth([False, True, True, False, False, True]) == [[0, 3, 4], [1, 5], [2]]


# --- the lines, on vectors that are known ---------------------------------------------------------


class Known:
    """A retriever whose vectors say how near each text is to both cards."""

    def __init__(self, near):
        self.encoder_checksum, self.near, self.embedded = "here", near, 0

    def vectors(self, texts):
        return [np.array(self.near[text], np.float32) for text in texts]

    def embed(self, texts):
        self.embedded += len(texts)
        row = [1.0, 0.0] if tuple(texts) == everyday_texts() else [0.0, 1.0]
        return np.array([row] * len(texts), np.float32)


LINES = Calibration(
    alone=SimilarityLine(slope=1.0, threshold=0.1, doubt=0.05),
    heard=ResponseLine(slope=1.0, threshold=0.2, own=0.1, all=0.01),
    kept=FollowUpLine(slope=0.5, gap=0.5, threshold=0.05),
    encoder="here",
    cards=cards_checksum(),
    base="smol",
    vectors={"everyday": [1.0, 0.0], "going_on": [0.0, 1.0]},
)


def expert(tmp_path, near, lines=LINES, base="smol"):
    if lines is not None:
        lines.save(tmp_path)
    return BaseExpert(Known(near), folder=tmp_path, base=lambda: base)


def test_the_threshold_follows_the_base_s_own_similarity(tmp_path):
    judge = expert(tmp_path, {"a": (0.2, 0.0), "b": (0.25, 0.0)}).judge
    assert judge("a", [Hit("x", 0.31)]).decision == "adapters"
    found = judge("b", [Hit("x", 0.31), Hit("y", 0.3)])
    assert found.decision == "base" and found.nearest == "x"
    assert found.threshold == pytest.approx(0.35) and found.base_similarity == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("best", "own", "decision"),
    [(0.33, 0.7, "adapters"), (0.33, 0.5, "base"), (0.27, 1.5, "adapters"), (0.27, 0.0, "base")],
)
def test_the_response_decides_the_doubtful_ones(tmp_path, best, own, decision):
    judge = expert(tmp_path, {"a": (0.2, 0.0)})
    first = judge.judge("a", [Hit("x", best)])
    assert judge.doubts(first)
    settled = judge.decide_by_activation(first, [own, 0.5, 0.5])
    assert settled.decision == decision
    worth = best - 0.2 + 0.1 * own + 0.01 * (own + 1.0) / 3 - 0.2
    assert settled.response == pytest.approx(worth, abs=1e-6)
    assert ("too weakly" in settled.sentence) == (decision == "base")


def test_clear_ones_and_those_of_another_base_are_not_doubted(tmp_path):
    near = {"a": (0.2, 0.0)}
    clear = expert(tmp_path, near)
    assert not clear.doubts(clear.judge("a", [Hit("x", 0.36)]))
    other = expert(tmp_path, near, base="another")
    assert not other.doubts(other.judge("a", [Hit("x", 0.33)]))
    assert not clear.doubts(clear.judge("a", []))


def test_one_s_own_adapter_need_only_be_nearer_than_the_base(tmp_path):
    """Who uploads an adapter asks for it more often than for one of a pool."""
    judge = expert(tmp_path, {"a": (0.2, 0.0)})
    own, other = Hit("x", 0.25, owner="me"), Hit("y", 0.24)
    found = judge.judge("a", [own, other])
    assert found.decision == "adapters" and found.own and found.threshold == pytest.approx(0.2)
    assert not judge.doubts(found), "responses were fitted for the line of the pool"
    assert judge.judge("a", [other, replace(own, score=0.23)]).decision == "base"
    assert judge.judge("a", [replace(own, score=0.19)]).decision == "base"
    low = expert(
        tmp_path, {"a": (0.2, 0.0)}, replace(LINES, alone=SimilarityLine(1.0, -0.05, 0.01))
    )
    assert low.judge("a", [own]).threshold == pytest.approx(0.15)


def test_a_message_goes_on_unless_another_adapter_is_far_ahead_or_it_is_everyday(tmp_path):
    near = {"go": (0.1, 0.3), "chat": (0.4, 0.2)}
    goes_on = expert(tmp_path, near).goes_on
    kept = goes_on("go", Hit("y", 0.3), Hit("x", 0.1))
    assert kept.decision == "kept" and (kept.nearest, kept.leader) == ("y", "x")
    assert kept.threshold == pytest.approx(0.5), "similarity at which y would answer"
    assert goes_on("go", Hit("y", 0.49), Hit("x", 0.1)) is not None
    assert goes_on("go", Hit("y", 0.51), Hit("x", 0.1)) is None
    assert goes_on("chat", Hit("y", 0.1), Hit("x", 0.1)) is None


def test_without_a_calibration_for_this_encoder_the_nearest_card_wins(tmp_path):
    for lines in (None, replace(LINES, encoder="another"), replace(LINES, cards="older")):
        found = expert(tmp_path, {"a": (0.25, 0.0)}, lines)
        assert not found.calibrated
        judged = found.judge("a", [Hit("x", 0.26)])
        assert judged.decision == "adapters" and not judged.calibrated
        assert "not calibrated for this encoder" in judged.sentence
        assert found.judge("a", [Hit("x", 0.24)]).decision == "base"
        assert found._retriever.embedded == len(everyday_texts()) + len(GOING_ON)
        assert found.goes_on("a", Hit("y", 0.3), Hit("y", 0.3)) is None


def test_a_calibration_is_read_as_it_was_written_and_embeds_nothing(tmp_path):
    found = expert(tmp_path, {"a": (0.2, 0.0)})
    assert read_calibration(tmp_path) == LINES and found.calibrated
    found.judge("a", [Hit("x", 0.3)])
    assert found._retriever.embedded == 0
    assert read_calibration(tmp_path / "none") is None


@pytest.mark.parametrize("text", ["", "[]", '{"schema": 1}', '{"schema": 2}'])
def test_a_broken_calibration_is_one_sentence(tmp_path, text):
    (tmp_path / FILE).write_text(text)
    with pytest.raises(RamoleError, match="run `python -m ramole_core calibrate` to make it anew"):
        read_calibration(tmp_path)
