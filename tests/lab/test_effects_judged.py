"""The judgement of effects, on answers of which everything is known."""

import json
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest

from lab import harness
from lab.__main__ import main
from lab.evaluation import effects
from lab.evaluation.composite import Composed
from lab.evaluation.effects import Deleted, deletion, judge, summarise, summarise_deleted
from lab.evaluation.questions import Question
from ramole_core.request import Generation, Trace
from ramole_core.training.rows import Encoded
from tests.support.fake_ramole import FakeRamole

PARTS = (0, 0, None, 1, 1)
"""Whose each token of the answer is; the last one's effects are the answer's own."""


def answered(effects) -> Generation:
    effects = np.asarray(effects, np.float32)
    T = len(effects)
    weights = np.full((3 + T, 1, 1, 2), 0.5, np.float16)
    weights[..., 0] = 0.75
    there = np.ones(weights.shape, np.bool_)
    words = ["x"] * (3 + T)
    trace = Trace(words, [1] * (3 + T), 3, ["bee", "ant"], [0], ["q"], weights, weights, there)
    base = np.full(T, -2, np.float32)
    return Generation(
        "", ["bee", "ant"], [0.5, 0.25], trace, "length", 3, T, 1.0, 0.5, {"effects": 0.5},
        effects=effects, base_logprob=base, logprob=base + effects.sum(-1),
    )  # fmt: skip


def test_the_right_adapter_is_the_one_whose_task_the_token_is():
    """The first part is ant's, whose effects stand in the second column."""
    question = Question("", ("ant", "bee"))
    row = Composed(Encoded((1, 2, 3), (4, 5, 6, 7, 8)), PARTS)
    found = judge(
        answered([[0, 3], [0.1, 0.05], [9, 0], [1, 0.5], [0, 9]]), row, question, "mixture"
    )
    assert found.right["effect"] == [True, False, True] and found.changed == [True, False, True]
    assert found.right["weight"] == [False, False, True] == found.right["contribution"]
    assert found.halves == [True, True] and found.gap < 1e-6 and found.tokens == 5
    told = summarise([found])
    assert told["effect"]["mean"] == pytest.approx(200 / 3, abs=0.01)  # pyright: ignore[reportIndexIssue]
    assert told["effect, changed"]["mean"] == 100  # pyright: ignore[reportIndexIssue]


def test_whoever_is_taken_away_is_left_out_or_switched_off_at_the_token():
    ramole = FakeRamole(length=6)
    system = SimpleNamespace(generate=lambda asked: generated(ramole, asked))
    found = deletion(system, "boats", "Which boats?", "mixture", seed=1)  # pyright: ignore[reportArgumentType]
    assert len(found) == 3 and all(one.effects == sorted(one.effects)[::-1] for one in found)
    asked = ramole.requests[1:7]
    assert [len(one.adapters or ()) for one in asked] == [2, 2, 2, 0, 0, 0]
    assert all(one.without for one in asked[3:]) and not any(one.effects for one in asked)
    assert summarise_deleted(found)["tokens"] == 3
    assert summarise_deleted([Deleted("x", [1.0], [True], [True])]) == {"tokens": 0}


def generated(ramole, requests):
    ended = {n: item for n, item in ramole.stream_batch(requests) if isinstance(item, Generation)}
    return [ended[n] for n in range(len(requests))]


def test_rows_that_were_edited_are_asked_anew_in_the_same_work_folder(tmp_path, monkeypatch):
    asked: list[str] = []

    def made(ramole, task, prompt, method, *, seed):
        asked.append(prompt)
        return [Deleted(task, [3.0, 2.0, 1.0], [prompt == "new?"] * 3, [True] * 3)]

    pool = SimpleNamespace(cards=lambda: [SimpleNamespace(name="ant")])
    base = SimpleNamespace(tokenizer=None)
    fake = SimpleNamespace(pool=pool, base=base, retrieve=list, generate=list)
    monkeypatch.setattr(harness, "served", lambda **_: nullcontext(fake))
    monkeypatch.setattr(harness, "facts_of", lambda ramole: {"base_model": "tiny"})
    monkeypatch.setattr(effects, "deletion", made)
    (tmp_path / "ant").mkdir()
    for prompt, percent in (("old?", 0), ("new?", 100), ("old?", 0)):
        row = {"inputs": prompt, "targets": "yes", "metric": "em"}
        (tmp_path / "ant" / "dev.jsonl").write_text(json.dumps(row))
        words = ["--methods", "mixture", "--out", str(tmp_path / "out.json")]
        words += ["--data", str(tmp_path), "--work", str(tmp_path / "work")]
        assert main(["effects", *words]) == 0
        found = json.loads((tmp_path / "out.json").read_text())["deleted"]["mixture"]
        assert found["another token comes"]["largest"]["mean"] == percent, prompt
    assert asked == ["old?", "new?"], "the third run has its numbers"
