"""The crowded pool: strangers that a pool accepts, of the samples' size; and the report's sums."""

from pathlib import Path

import pytest
import torch

from ramole_core.evaluation.crowded import Prompt, by_adapter, compare, measure_retrieval
from ramole_core.evaluation.distractors import TASKS, crowd, usual_sizes, write_examples
from ramole_core.pool import Pool
from tests.pool_fakes import SHAPES, write_sample


def test_every_invented_task_has_20_examples_of_its_own() -> None:
    tasks = dict(write_examples(len(TASKS), seed=3))
    assert len(tasks) == 40
    for name, examples in tasks.items():
        assert len(examples) == 20 and len(set(examples)) >= 10, name
        assert not any("{" in text for text in examples), name
    assert dict(write_examples(40, seed=3)) == tasks
    assert dict(write_examples(40, seed=4)) != tasks
    with pytest.raises(ValueError, match="41 tasks"):
        list(write_examples(41))


def test_strangers_are_taken_in_and_have_the_samples_size(tmp_path: Path) -> None:
    for seed, name in enumerate(("one", "two", "six")):
        write_sample(tmp_path / "adapters", name, seed=seed, examples=["a"])
    pool = Pool(
        adapters_dir=tmp_path / "adapters", data_dir=tmp_path / "data", shapes=lambda: SHAPES
    )
    sizes = usual_sizes(pool)
    A, B = pool.tensors(pool.card("one")).modules["model.layers.0.self_attn.v_proj"]
    i, o, _ = sizes["model.layers.0.self_attn.v_proj"]
    assert (i, o) == (A.shape[1], B.shape[0]) == (24, 16)
    names = crowd(pool, write_examples(5), seed=0)
    assert names[0] == "other-product_mood" and len(set(names)) == 5
    cards = [pool.card(name) for name in names]
    assert [card.rank for card in cards] == [4, 6, 8, 16, 4]
    for card in cards:
        modules = pool.tensors(card).modules
        assert set(modules) == set(sizes) and len(card.examples) == 20
        for path, (A, B) in modules.items():
            norm = float(torch.linalg.matrix_norm(B.float() @ A.float()))
            assert norm == pytest.approx(sizes[path][2], rel=0.02)
    pool.close()


PROMPTS = [Prompt("sql", "em", "q1", "yes"), Prompt("sql", "em", "q2", "no")]
PROMPTS += [Prompt("mood", "em", "q3", "glad")]


def test_scores_and_paired_gains() -> None:
    answers = {"base": ["no", "- no", "sad"], "ramole": ["yes", "no", "sad"]}
    strict = compare(PROMPTS, answers, forgiving=False)
    assert strict["base"]["mean"] == 0
    assert strict["ramole"]["mean"] == pytest.approx(200 / 3)
    assert strict["ramole"]["gain_over_base"]["mean"] == pytest.approx(200 / 3)
    assert strict["ramole"]["by_adapter"] == {"sql": 100, "mood": 0}
    lenient = compare(PROMPTS, answers, forgiving=True)
    assert lenient["base"]["mean"] == pytest.approx(100 / 3)
    assert lenient["ramole"]["gain_over_base"]["mean"] == pytest.approx(100 / 3)
    assert by_adapter(PROMPTS, [1.0, 2.0, 7.0]) == {"sql": 1.5, "mood": 7}


def test_first_and_within_k() -> None:
    found = [["sql", "mood"], ["mood", "sql"], ["x", "y"]]
    report = measure_retrieval(PROMPTS, found)
    assert report["first"]["mean"] == pytest.approx(100 / 3)
    assert report["found"]["mean"] == pytest.approx(200 / 3)
    assert report["missed"] == {"sql -> mood": 1, "mood -> x": 1}
