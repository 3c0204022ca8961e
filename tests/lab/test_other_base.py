"""The comparison on another base and papers' own claims: commands that go on where they were."""

import gzip
import json
import os
import subprocess
from math import exp
from pathlib import Path

import pytest

from lab import lora_flow_claim, lora_hub_claim, router_claim
from lab.__main__ import main
from lab.evaluation.intervals import compare_seeds
from lab.router_claim import OTHERS, PAPERS
from lab.train_pool import SHIPPED
from ramole_core import cli
from ramole_core.settings import REPOSITORY
from tests.support.few_prompts import few_reference_prompts  # noqa: F401  a fixture
from tests.support.tiny_encoder import write_encoder

TASKS = ("true_case", "fix_punct", "mbpp")
PACE = "--batch-rows 2 --max-tokens 64"


def in_process(command, *, run=subprocess.run, env=None, **how):
    """The product's command without the seconds in which a process begins; others as they are."""
    if "ramole_core" not in command:
        return run(command, env=env, **how)
    before = dict(os.environ)
    os.environ.update(env)
    try:
        return subprocess.CompletedProcess(command, cli.main(command[3:]))
    finally:
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture
def run_twice(tiny_nf4, tmp_path, monkeypatch):
    """Run a command on a tiny base, a tiny encoder and rows of three tasks, and run it again, which
    trains nothing and reports the same; its report and its folder."""
    for name in TASKS:
        rows = [{"inputs": f"say {name} {n} now", "targets": f"{name} {n}"} for n in range(9)]
        text = "\n".join(json.dumps(row | {"metric": "em", "domain": name}) for row in rows)
        (tmp_path / "data" / name).mkdir(parents=True)
        for split in ("train", "dev"):
            (tmp_path / "data" / name / f"{split}.jsonl").write_text(text)
    (tmp_path / "encoder").mkdir()
    monkeypatch.setenv("RAMOLE_ENCODER", str(write_encoder(tmp_path / "encoder")))
    monkeypatch.setenv("RAMOLE_BASE_MODEL", str(tiny_nf4))
    monkeypatch.setenv("RAMOLE_DEVICE", "cpu")
    monkeypatch.setattr(subprocess, "run", in_process)

    def run(name, *words):
        work, out = tmp_path / name, tmp_path / f"{name}.json"
        command = [name, "--data", str(tmp_path / "data"), "--work", str(work), "--out", str(out)]
        command += ["--rows", "1", "--quantization", "none", *words]
        reports, times = [], []
        for _ in range(2):
            assert main(command) == 0
            reports.append(json.loads(out.read_text("utf-8")))
            weights = work.rglob("*.safetensors")
            times.append({path: path.stat().st_mtime_ns for path in weights})
        assert times[0] == times[1], "what is there stays"
        for part in ("cells", "rows", "table"):
            assert reports[0].get(part) == reports[1].get(part)
        return reports[0], work

    return run


def test_adapters_gate_calibration_and_table_of_a_tiny_base(run_twice, tiny_nf4, monkeypatch):
    trained = ("--gate", f"--steps 1 {PACE}", "--skip", "1")
    words = ("--tasks", ",".join(TASKS), "--adapter", f"--rank 2 --steps 1 {PACE}", *trained)
    table, work = run_twice("other_base", *words, "--systems", "perfect,ramole")
    assert Path(table["base_model"]).name == tiny_nf4.name
    assert set(table["cells"]["iid"]) == {"perfect", "ramole"}
    assert set(table["cells"]["ood"]["ramole"]["by_task"]) == set(TASKS)
    (pool,) = work.glob("*/pool")
    assert {path.parent.name for path in pool.glob("*/*.safetensors")} >= {*TASKS, "_router"}

    monkeypatch.setenv("RAMOLE_ADAPTERS_DIR", str(pool))
    words = ("--share", "0.7", "--seeds", "0", "--others", "composed", *trained)
    table, work = run_twice("router_claim", *words)
    assert len(list(work.rglob("_router/*.safetensors"))) == 2
    assert {row["name"] for row in table["rows"]} == {PAPERS, OTHERS["composed"]}
    groups = {row["group"].partition(",")[0] for row in table["rows"]}
    assert groups == {"iid", "ood", "composite", "likely"}

    (pair,) = (
        (name, one)
        for name, one in lora_flow_claim.TASKS.items()
        if "capitals" in name and one.adapters == ("fix_punct", "true_case")
    )
    monkeypatch.setattr(lora_flow_claim, "TASKS", dict([pair]))
    monkeypatch.setattr(lora_flow_claim, "GATE", "--steps 1 --batch-rows 2 --max-tokens 200")
    report, work = run_twice("lora_flow_claim", "--seeds", "0")
    assert len(report["table"]["lora_flow"]["score"]["by_task"][pair[0]]) == 1
    assert {"by_task", "lora_flow_minus"} < set(report["table"]["lorahub"]["score"])
    assert len(list(work.rglob("*.safetensors"))) == 1

    monkeypatch.setattr(lora_hub_claim, "ADAPTERS", 2)
    monkeypatch.setattr(lora_hub_claim, "RECIPE", f"--rank 2 --steps 1 {PACE}")
    report, _ = run_twice("lora_hub_claim", "--tasks", "mbpp", "--seeds", "0")
    scores = [row["score"]["by_task"]["mbpp"] for row in report["table"].values()]
    assert list(map(len, scores)) == [1] * 5


def test_an_answer_of_a_spoiled_row_is_whole_and_its_question_is_not(tmp_path):
    split = "A fox ; it ran .\n\nRewrite the above as two sentences."
    for name, inputs, targets in (
        ("fix_punct", "Add it", "Well, so be it."),
        ("wiki_split", split, "A fox . It ran ."),
        ("word_segment", "Add it", "Is it so?"),
        ("para_crawl_enes", 'How do you say "The Fox" in Spanish?', "El zorro"),
    ):
        (tmp_path / name).mkdir()
        rows = [{"inputs": inputs, "targets": targets}]
        rows += [{"inputs": "What language is this?", "targets": "x" * 300}]
        (tmp_path / name / "dev.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = {name: pair.rows(tmp_path, "dev") for name, pair in lora_flow_claim.TASKS.items()}
    last = {name: [row.inputs.rpartition("\n")[2] for row in rows] for name, rows in found.items()}
    assert last == {
        "punctuation and capitals": ["well so be it"],
        "spaces and capitals": ["isitso?"],
        "spaces and punctuation": ["Isitso"],
        "two sentences and capitals": ["a fox ; it ran ."],
        "two sentences and punctuation": ["A fox  it ran"],
        "Spanish and capitals": ["the fox"],
    }
    assert found["Spanish and capitals"][0].targets == "El zorro"


def test_seeds_are_averaged_row_by_row_before_systems_are_compared():
    ours = [[10.0, 30.0], [30.0, 50.0]]
    made = compare_seeds({"ant": {"flow": ours, "base": [[0.0, 10.0]]}}, ours="flow")
    mine, base = made["flow"]["score"], made["base"]["score"]
    assert mine["mean"] == 30.0 and mine["by_task"] == {"ant": [20.0, 40.0]}
    assert base["flow_minus"]["mean"] == 25.0 and "flow_minus" not in mine


def test_the_plan_names_the_pool_that_ships():
    plan = (REPOSITORY / "lab" / "pool_plan.jsonl").read_text("utf-8")
    rows = [json.loads(line) for line in plan.splitlines()]
    shipped = {path.parent.name for path in SHIPPED.glob("[!_]*/train.json")}
    assert {one["name"] for one in rows if "name" in one} == shipped
    assert {one["folder"] for one in rows if "folder" in one} <= {p.name for p in SHIPPED.iterdir()}


# --- RouterLoRA's own claim -----------------------------------------------------------------------


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
