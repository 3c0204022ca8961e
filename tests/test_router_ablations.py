"""The router's ablations: nested shares, kept trials, and the sums of the table."""

import json

import numpy as np
import pytest
import torch

from lab.evaluation import router_table
from lab.evaluation.cells import Cell, Cells
from lab.evaluation.router_ablations import (
    USUAL,
    VARIANTS,
    Trials,
    Variant,
    draw_share,
    summarise,
)
from lab.harness import read_tasks
from ramole_core.composition import Lora
from ramole_core.training.recipe import Schedule
from tests.tiny_training import build_base

SHAPES = {"model.layers.0.self_attn.q_proj": (24, 24), "model.layers.1.mlp.up_proj": (24, 36)}


def test_every_group_has_the_usual_variant_and_changes_one_thing():
    for group, field in (("dropout", "dropout"), ("rank", "rank"), ("share", "share"), ("k", "k")):
        members = [variant for variant in VARIANTS if variant.group == group]
        values = {getattr(variant, field) for variant in members}
        assert getattr(USUAL, field) in values and len(values) == len(members) > 1
        for other in {"dropout", "rank", "share", "k"} - {field}:
            assert {getattr(variant, other) for variant in members} == {getattr(USUAL, other)}


def test_a_larger_share_holds_the_smaller_ones():
    names = [f"task{n}" for n in range(10)]
    small, middle, whole = (draw_share(names, share, seed=4) for share in (0.1, 0.4, 1.0))
    assert (len(small), len(middle), len(whole)) == (2, 4, 10)
    assert set(small) < set(middle) < set(whole)
    assert draw_share(names, 0.4, seed=5) != middle


def test_a_row_of_the_table_is_the_mean_over_seeds_against_equal_weights():
    found = [[1.0, 2.0, 3.0], [2.0, 3.0, 4.0]]
    variant = Variant("rank", "rank 2", rank=2)
    row = summarise(variant, "others", found, uniform=[2.0, 3.0, 4.0], tasks=["ant", "ant", "bee"])
    assert (row["group"], row["name"]) == ("rank", "rank 2, right adapter hidden")
    assert row["mean"] == 2.5 and row["seeds"] == [2.0, 3.0]
    assert row["against"] == {"rival": "equal weights", "mean": -0.5, "low": -0.5, "high": -0.5}


def test_differences_are_drawn_by_task():
    row = summarise(
        USUAL, "own", [[1.0] * 9 + [3.0]], uniform=[2.0] * 10, tasks=["ant"] * 9 + ["bee"]
    )
    gap = row["against"]
    assert gap["mean"] == -0.8 and (gap["low"], gap["high"]) == (
        -1.0,
        1.0,
    )  # bee alone may be drawn


@pytest.fixture
def trials(tmp_path):
    torch.manual_seed(5)
    names = ("blue", "loud", "red", "say", "sing")
    for name in names:
        folder = tmp_path / "data" / name
        folder.mkdir(parents=True)
        for split, count in (("train", 12), ("dev", 6)):
            rows = [
                {"inputs": f"say {name} {n % 7}", "targets": f"{name} {n % 5}", "metric": "em"}
                for n in range(count)
            ]
            text = "".join(json.dumps(row) + "\n" for row in rows)
            (folder / f"{split}.jsonl").write_text(text, encoding="utf-8")
    loras = {
        name: {
            path: Lora(A=torch.randn(2, i) * i**-0.5, B=torch.randn(o, 2))
            for path, (i, o) in SHAPES.items()
        }
        for name in names
    }
    cells = Cells(tmp_path / "work", {"rows": 4})
    made = Trials(
        cells,
        base=build_base(torch.float32, tmp_path),
        shapes=SHAPES,
        loras=loras,
        data=tmp_path / "data",
        unseen=read_tasks(tmp_path / "data", ("red", "sing"), rows=4),
        schedule=Schedule(steps=3, batch_rows=4, learning_rate=3e-2, warmup=1),
    )
    return made, cells


def test_a_trial_trains_on_others_measures_once_and_is_kept(trials):
    trials, cells = trials
    variant = Variant("share", "all", share=1.0)
    found = trials.losses(variant, "own", 0)
    assert trials.seen == ("blue", "loud", "say") and len(trials.tasks) == 8
    assert len(found) == 8 and found != trials.uniform("own", k=3)
    gate = cells.folder / "gates" / "dropout0.5-rank6-share1-seed0" / "router_config.json"
    assert set(json.loads(gate.read_text())["trained_on"]) == {"blue", "loud", "say"}
    made = gate.stat().st_mtime_ns
    others = trials.losses(variant, "others", 0)
    assert gate.stat().st_mtime_ns == made and others != found
    kept = Cell([], [], [], measures={"loss": [1.0] * 4})
    cells.write("own", "dropout0.5-rank6-share1-k3-seed0", "red", kept)
    assert trials.losses(variant, "own", 0) == [1.0] * 4 + found[4:]
    alone = Variant("k", "k = 1", k=1)
    assert trials.losses(alone, "own", 0) == trials.uniform("own", k=1)


def test_a_gate_must_win_whichever_tasks_are_drawn_and_the_sets_are_told():
    chance = np.random.default_rng(0)
    lead = [[-0.1 + 0.01 * chance.normal() for _ in range(10)], [0.06] * 10, [-0.08] * 10]
    uniform = {"ant": [2.0] * 20, "bee": [3.0] * 10}
    trained = {
        "ant": [2.0 + x for x in (*lead[0], *lead[1])],
        "bee": [3.0 + x for x in lead[2]],
    }
    summary = router_table.summarise({"trained": trained, "uniform": uniform, "random": uniform})
    gap = summary["trained_minus"]["uniform"]
    assert gap["high"] < 0 < gap["set_high"]  # 30 rows agree, of three sets one does not
    assert gap["task_low"] == pytest.approx(-0.08) and gap["task_high"] < 0
    said = router_table.verdict(summary)
    assert "beats the uniform gate" in said and f"{gap['set_high']:+.4f}]" in said
    gap |= {"task_high": 0.01}
    assert "does not beat the uniform gate" in router_table.verdict(summary)
