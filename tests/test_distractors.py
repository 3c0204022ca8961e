"""Strangers that a pool accepts, of the sample adapters' size."""

from pathlib import Path

import pytest
import torch

from lab.evaluation.made_adapters import add_strangers, usual_sizes
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
    names = add_strangers(pool, strangers, seed=0)
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
