"""Strangers that a pool accepts, of the sample adapters' size."""

from pathlib import Path

import pytest
import torch

from ramole_core.evaluation import situations
from ramole_core.evaluation.distractors import crowd, spoil, usual_sizes
from ramole_core.evaluation.situations import make_crowd
from ramole_core.pool import Pool
from tests.pool_fakes import SHAPES, write_sample


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
    strangers = [(f"task {n}", [f"ask {n}/{i}" for i in range(20)]) for n in range(5)]
    names = crowd(pool, strangers, seed=0)
    assert names[0] == "other-task-0" and len(set(names)) == 5
    cards = [pool.card(name) for name in names]
    assert [card.rank for card in cards] == [4, 6, 8, 16, 4]
    for card in cards:
        modules = pool.tensors(card).modules
        assert set(modules) == set(sizes) and len(card.examples) == 20
        for path, (A, B) in modules.items():
            norm = float(torch.linalg.matrix_norm(B.float() @ A.float()))
            assert norm == pytest.approx(sizes[path][2], rel=0.02)
    pool.close()


def test_ruined_copies_are_loud_and_show_disjoint_examples(tmp_path: Path) -> None:
    write_sample(tmp_path / "adapters", "one", seed=1, examples=["a"], lora_alpha=0.01)
    pool = Pool(
        adapters_dir=tmp_path / "adapters", data_dir=tmp_path / "data", shapes=lambda: SHAPES
    )
    shown = [f"ask {n}" for n in range(8)]
    made = spoil(pool, [("one", shown)], each=2, seed=0, noises=(0.5, 1.0), label="ruined")
    assert made == ["ruined1-one", "ruined2-one"]
    examples = [set(pool.card(name).texts) for name in made]
    assert not examples[0] & examples[1] and examples[0] | examples[1] == set(shown)
    A, _ = pool.tensors(pool.card("one")).modules["model.layers.0.self_attn.v_proj"]
    for name, noise in zip(made, (0.5, 1.0), strict=True):
        spoilt, _ = pool.tensors(pool.card(name)).modules["model.layers.0.self_attn.v_proj"]
        ratio = spoilt.float().square().mean().sqrt() / A.float().square().mean().sqrt()
        assert float(ratio) == pytest.approx((1 + noise**2) ** 0.5, rel=0.15)
    pool.close()


def test_a_crowd_has_ruined_copies_only_where_they_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a pool refuses updates that are too large, and those of a fake are large before
    monkeypatch.setattr(situations, "RUINOUS", (0.5,))
    write_sample(tmp_path / "adapters", "one", seed=1, examples=["a"], lora_alpha=0.01)
    rows = "\n".join(f'{{"inputs": "ask {n}", "targets": "x"}}' for n in range(50))
    for task in ("one", "other"):
        (tmp_path / "tasks" / task).mkdir(parents=True)
        for part in ("train", "dev"):
            (tmp_path / "tasks" / task / f"{part}.jsonl").write_text(rows)
    for ruined, count in ((False, 0), (True, 2)):
        pool = Pool(
            adapters_dir=tmp_path / "adapters",
            data_dir=tmp_path / f"data{count}",
            shapes=lambda: SHAPES,
        )
        found = make_crowd(pool, tmp_path / "tasks", seed=0, count=3, ruined=ruined)
        assert found.samples == ("one",) and len(found.ruined) == count
        assert found.distractors == ("copy1-one", "copy2-one", "other-other")
        assert {card.name for card in pool.cards()} == {
            *found.samples, *found.distractors, *found.ruined,
        }  # fmt: skip
        pool.close()
