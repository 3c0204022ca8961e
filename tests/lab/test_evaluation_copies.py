"""Pools of copies: what they show, whose they are, and that their weights are the samples'."""

from pathlib import Path

import pytest
import torch

from lab.evaluation.made_adapters import (
    BLIND,
    IMPOSTORS,
    PERMUTED,
    add_blind,
    add_permuted,
    add_strangers,
    usual_sizes,
)
from ramole_core.pool import Pool
from tests.support.pool_fakes import SHAPES, write_sample

NAMES = ("one", "two", "six", "ten")


@pytest.fixture
def pool(tmp_path: Path):
    for seed, name in enumerate(NAMES):
        write_sample(
            tmp_path / "adapters", name, seed=seed, examples=[f"{name} {n}" for n in "abc"]
        )
    opened = Pool(
        adapters_dir=tmp_path / "adapters", data_dir=tmp_path / "data", shapes=lambda: SHAPES
    )
    yield opened
    opened.close()


def same_weights(pool: Pool, copy: tuple[str, str], name: str) -> bool:
    """Whether the copy (name, owner) has the sample's update within rounding."""
    ours = pool.tensors(pool.card(copy[0], copy[1])).modules
    theirs = pool.tensors(pool.card(name)).modules
    assert set(ours) == set(theirs)
    return all(
        torch.allclose(
            ours[path][1].float() @ ours[path][0].float(),
            theirs[path][1].float() @ theirs[path][0].float(),
            rtol=1e-3,
            atol=1e-5,
        )
        for path in theirs
    )


def test_blind_copies_show_nothing_and_their_names_say_nothing(pool: Pool):
    copies = add_blind(pool, NAMES, seed=0)
    assert set(copies) == set(NAMES)
    for name, copy in copies.items():
        card = pool.card(copy, BLIND)
        assert card.owner == BLIND and not card.examples
        assert all(name not in text for text in (copy, *card.texts))
        assert same_weights(pool, (copy, BLIND), name)
        assert [other for other in NAMES if same_weights(pool, (copy, BLIND), other)] == [name]
    assert {card.name for card in pool.cards()} == set(NAMES), "nobody else sees them"


def test_every_example_set_is_shown_by_its_adapter_and_by_two_impostors(pool: Pool):
    copies = add_permuted(pool, NAMES, seed=0)
    cards = [card for card in pool.cards(PERMUTED) if card.owner == PERMUTED]
    assert len(cards) == len(NAMES) * (1 + IMPOSTORS)
    weights: dict[str, list[str]] = {name: [] for name in NAMES}
    for card in cards:
        shown = {text.split()[0] for text in card.examples}
        assert len(shown) == 1
        (own,) = (n for n in NAMES if same_weights(pool, (card.name, PERMUTED), n))
        weights[shown.pop()].append(own)
    for name, behind in weights.items():
        assert len(set(behind)) == 1 + IMPOSTORS and name in behind
        assert same_weights(pool, (copies[name], PERMUTED), name)
        assert pool.card(copies[name], PERMUTED).examples[0].startswith(name)


def test_strangers_are_taken_in_and_have_the_samples_size(pool: Pool) -> None:
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
