"""Answers checked word by word against the merged model; and the pieces of the evidence table."""

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM

from lab.evaluation.cells import Cell
from lab.evaluation.evidence_table import RIVAL, VARIANTS, best, named, summarise
from lab.evaluation.forced import Forced, measure_forced
from ramole_core import RamoleError
from ramole_core.composition import Candidate, Response
from ramole_core.training.rows import Row, encode_row
from tests.support.tiny_engine import TinyEngine

ROWS = [Row("one two", "three"), Row("a longer question, is it?", "no"), Row("x", "y z y")]
METRICS = ["em", "bleu", "em"]


@pytest.fixture
def tiny(tiny_llama: Path) -> TinyEngine:
    return TinyEngine(tiny_llama)


def by_hand(tiny: TinyEngine, row: Row, content: tuple[str, int], metric: str) -> Forced:
    """One row through a model that has the adapter's update added to its weights."""
    model = AutoModelForCausalLM.from_pretrained(tiny.base.folder, dtype=torch.float32).eval()
    for path, lora in tiny.adapter(*content).items():
        with torch.no_grad():
            model.get_parameter(f"{path}.weight").add_(lora.B @ lora.A)
    encoded = encode_row(tiny.base.tokenizer, row)
    ids = torch.tensor([encoded.prompt + encoded.answer])
    with torch.no_grad():
        logits = model(input_ids=ids, use_cache=False).logits[0, len(encoded.prompt) - 1 : -1]
    answer = torch.tensor(encoded.answer)
    right = (logits.argmax(-1) == answer).float()
    score = float(right.min() if metric == "em" else right.mean())
    return Forced(100 * score, F.cross_entropy(logits, answer).item())


def test_a_forced_row_is_what_the_merged_model_says(tiny: TinyEngine) -> None:
    contents = [("ann", 3), ("bob", 2), ("ann", 3)]
    expected = [
        by_hand(tiny, row, content, metric)
        for row, content, metric in zip(ROWS, contents, METRICS, strict=True)
    ]
    found = measure_forced(
        tiny.engine,
        tiny.base,
        ROWS,
        METRICS,
        [tiny.chosen([content]) for content in contents],
        method="selection",
    )
    assert len({one.loss for one in found}) == 3
    for ours, oracle in zip(found, expected, strict=True):
        assert ours.loss == pytest.approx(oracle.loss, rel=1e-4)
        assert ours.score == pytest.approx(oracle.score)
    tiny.engine.close()


def test_exact_match_needs_every_token_and_others_count_the_share(tiny: TinyEngine) -> None:
    row = ROWS[2]
    encoded = encode_row(tiny.base.tokenizer, row)
    vocabulary, hidden = tiny.base.model.get_output_embeddings().weight.shape
    head = torch.nn.Linear(hidden, vocabulary)
    with torch.no_grad():  # one token is always the likeliest
        head.weight.zero_()
        head.bias.zero_()
        head.bias[encoded.answer[0]] = 9.0
    tiny.base.model.set_output_embeddings(head)
    found = measure_forced(
        tiny.engine, tiny.base, [row, row], ["em", "bleu"], [[], []], method="base"
    )
    share = sum(token == encoded.answer[0] for token in encoded.answer) / len(encoded.answer)
    assert 0 < share < 1
    assert [one.score for one in found] == pytest.approx([0, 100 * share])
    tiny.engine.close()


def test_the_best_are_those_of_most_evidence() -> None:
    def one(name: str, score: float, surprise: float) -> Candidate:
        usual = torch.tensor([[0.5, 0.25]])
        response = Response(0.5 + 0.25 * torch.tensor([surprise]), usual, torch.tensor([True]))
        return Candidate(name, score, name, dict, response)

    pool = [one("near", 0.50, 0.0), one("loud", 0.49, 1.0), one("far", 0.10, 3.0)]
    once = {"surprise": 1.0, "tied": 0.0}
    assert [c.name for c in best(pool, 2, options=once)] == ["loud", "near"]
    assert [c.name for c in best(pool, 1, options={"surprise": 0.0})] == ["near"]
    assert [c.name for c in best(pool, 1, options={"bandwidth": 1e6})] == ["far"]
    fit = [one("a", 0.50, 0.5), one("b", 0.2, 1.6)]  # one fits, and is not overruled
    assert [c.name for c in best(fit, 1, options={"surprise": 1.0})] == ["a"]
    far = [*fit, one("c", 0.30, 1.1)]  # nor where another fits, and far less well
    assert [c.name for c in best(far, 1, options={"surprise": 1.0})] == ["a"]
    fit += [one("c", 0.45, 1.1)]  # two fit alike, and the louder of them is taken
    assert [c.name for c in best(fit, 1, options={"surprise": 1.0, "tied": 2.0})] == ["c"]
    assert [c.name for c in best(fit, 1, options={"surprise": 1.0, "tied": 0.0})] == ["a"]


def test_variants_have_one_name_each_and_the_first_is_the_rival() -> None:
    assert len({variant.name for variant in VARIANTS}) == len(VARIANTS)
    assert VARIANTS[0].name == VARIANTS[0].method == RIVAL == "similarity"
    assert named("") == list(VARIANTS)
    assert [one.method for one in named("mixture; ramole")] == ["mixture", "ramole"]
    with pytest.raises(RamoleError, match="No variant is named 'mix'"):
        named("mix")
    assert {"uniform_router", "random_router"} <= {variant.method for variant in VARIANTS}


def test_a_summary_is_paired_and_goes_by_tasks() -> None:
    def cells(gain: dict[str, float], loss: float) -> dict[str, Cell]:
        return {
            task: Cell([gain[task], 100 + gain[task]] * 10, [], [], measures={"loss": [loss] * 20})
            for task in gain
        }

    plain = cells({"a": 0.0, "b": 0.0}, 2.0)
    row = summarise(cells({"a": 25.0, "b": 25.0}, 1.5), plain)
    assert row["mean"] == 75 and row["loss"] == 1.5
    against, loss = row["against"], row["loss_against"]
    assert isinstance(against, dict) and isinstance(loss, dict)
    assert against["rival"] == RIVAL and against["mean"] == against["low"] == 25
    assert loss["mean"] == -0.5 and not math.isnan(loss["low"])
    gap = summarise(cells({"a": 10.0, "b": 0.0}, 2.0), plain, rival="mixture")["against"]
    expected = {"rival": "mixture", "mean": 5, "low": 0, "high": 10}
    assert gap == expected, "one task of two is no lead"
