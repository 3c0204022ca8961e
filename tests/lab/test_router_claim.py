"""The table of RouterLoRA's own claim, and prompts of two tasks; `test_other_base.py` runs it."""

import gzip
import json
from math import exp

import pytest

from lab import router_claim

SEEN = ("ant", "bee")


@pytest.fixture
def archives(tmp_path):
    """The controls, two seeds and one more, each with its cells."""

    def write(name, share=60.0, **systems):
        cells = {
            f"iid/{system}/{task}": {"strict": values, "measures": {}}
            for system, tasks in systems.items()
            for task, values in tasks.items()
        }
        cells |= {
            f"composite/{system}/ant and {other}": {
                "strict": [],
                "measures": {"ahead": [share], "loss": [share / 100]},
            }
            for system in systems
            for other in ("bee", "cow")
        }
        file = tmp_path / f"{name}_cells.json.gz"
        file.write_bytes(gzip.compress(json.dumps({"cells": cells}).encode()))
        return file

    rivals = {"ant": [10.0, 30.0], "bee": [20.0], "cow": [0.0]}
    return {
        router_claim.CONTROLS: write("no", 70.0, mixture=rivals, similarity=rivals),
        "seed 0": write(
            "one",
            ramole={"ant": [20.0, 40.0], "bee": [30.0], "cow": [0.0]},
            random_router={"ant": [20.0, 40.0], "bee": [30.0], "cow": [8.0]},
        ),
        "seed 1": write("two", ramole={"ant": [40.0, 60.0], "bee": [50.0], "cow": [8.0]}),
        "own": write("own", ramole={"ant": [10.0, 30.0], "bee": [20.0], "cow": [50.0]}),
    }


def test_seeds_are_averaged_row_by_row_and_tasks_that_a_gate_saw_stand_apart(archives):
    rows = router_claim.table(archives, SEEN)
    found = {(row["group"], row["name"]): row for row in rows}
    saw = found["iid, tasks it saw", router_claim.PAPERS]
    assert saw["mean"] == pytest.approx((30 + 50 + 40) / 3) and saw["seeds"] == [30.0, 50.0]
    assert saw["minus"]["equal weights"] == {"mean": 20.0, "low": 20.0, "high": 20.0}
    assert saw["minus"]["a random gate"]["mean"] == 10.0
    new = found["iid, tasks it never saw", router_claim.PAPERS]
    assert new["mean"] == 4.0 and new["minus"]["equal weights"]["mean"] == 4.0
    own = found["iid, tasks it never saw", router_claim.OTHERS["own"]]
    assert own["minus"]["equal weights"]["mean"] == 50.0 and "seeds" not in own
    pairs = found["composite, all", router_claim.PAPERS]
    assert pairs["mean"] == 60.0 and pairs["minus"]["similarity"]["mean"] == -10.0
    likely = found["likely, all", router_claim.PAPERS]
    assert likely["mean"] == pytest.approx(100 * exp(-0.6), abs=0.01)
    assert likely["minus"]["similarity"]["mean"] > 0, "less loss"
    assert all(group != "composite, tasks it never saw" for group, _ in found)


def test_composed_rows_hold_two_tasks_each_with_its_answer(tmp_path):
    for name in SEEN:
        (tmp_path / name).mkdir()
        rows = [{"inputs": f"{name} {n}?", "targets": f"{name.upper()} {n}"} for n in range(4)]
        for split in ("train", "dev"):
            (tmp_path / name / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    made = router_claim.write_composed(tmp_path, SEEN, tmp_path / "made", dev=3)
    rows = [json.loads(line) for line in (made / "ant" / "train.jsonl").read_text().splitlines()]
    assert [row["inputs"] for row in rows[::2]] == ["ant 0?", "ant 2?"]
    for row in rows[1::2]:
        first, other = row["inputs"].split("\n\n")
        assert first.startswith("ant") and other.startswith("bee")
        assert row["targets"] == f"{first} {other}".upper().replace("?", "").replace(
            " BEE", "\n\nBEE"
        )
