"""The comparison on another base and papers' own claims: commands that go on where they were."""

import json
import os
import subprocess
from pathlib import Path

from lab import lora_flow_claim, lora_hub_claim
from lab.__main__ import main
from lab.evaluation.intervals import compare_seeds
from lab.router_claim import OTHERS, PAPERS
from lab.train_pool import SHIPPED
from ramole_core import cli
from ramole_core.settings import REPOSITORY
from tests.support.few_prompts import few_reference_prompts  # noqa: F401  a fixture

TASKS = ("true_case", "fix_punct", "mbpp")


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


def test_adapters_gate_calibration_and_table_of_a_tiny_base(tiny_nf4, tmp_path, monkeypatch):
    data, work, out = tmp_path / "data", tmp_path / "work", tmp_path / "table.json"
    for name in TASKS:
        (data / name).mkdir(parents=True)
        for split in ("train", "dev"):
            rows = [{"inputs": f"{name} {split} {n}?", "targets": f"{name} {n}"} for n in range(9)]
            text = "\n".join(json.dumps(row | {"metric": "em", "domain": name}) for row in rows)
            (data / name / f"{split}.jsonl").write_text(text)
    monkeypatch.setenv("RAMOLE_BASE_MODEL", str(tiny_nf4))
    monkeypatch.setenv("RAMOLE_DEVICE", "cpu")
    monkeypatch.setattr(subprocess, "run", in_process)
    pace = "--batch-rows 2 --max-tokens 64"
    words = ["other_base", "--data", str(data), "--work", str(work), "--tasks", ",".join(TASKS)]
    words += ["--adapter", f"--rank 2 --steps 2 {pace}", "--gate", f"--steps 1 {pace}"]
    words += ["--rows", "2", "--skip", "1", "--systems", "base,perfect,ramole"]
    words += ["--quantization", "none", "--out", str(out)]
    assert main(words) == 0
    (pool,) = work.glob("*/pool")
    made = {path: path.stat().st_mtime_ns for path in pool.glob("*/*.safetensors")}
    assert {path.parent.name for path in made} >= {*TASKS, "_router"}
    table = json.loads(out.read_text("utf-8"))
    assert Path(table["base_model"]).name == tiny_nf4.name and table["rows"] == 2
    assert set(table["cells"]["iid"]) == {"base", "perfect", "ramole"}
    assert set(table["cells"]["ood"]["ramole"]["by_task"]) == set(TASKS)
    assert main([*words[:-1], str(tmp_path / "again.json")]) == 0
    assert {path: path.stat().st_mtime_ns for path in made} == made, "what is there stays"
    again = json.loads((tmp_path / "again.json").read_text("utf-8"))
    assert again["cells"] == table["cells"]

    monkeypatch.setenv("RAMOLE_ADAPTERS_DIR", str(pool))
    claim = tmp_path / "claim.json"
    words = ["router_claim", "--data", str(data), "--work", str(work / "claim"), "--share", "0.7"]
    words += ["--seeds", "0,1", "--gate", f"--steps 1 {pace}", "--others", "own,composed,all"]
    words += ["--quantization", "none", "--rows", "2", "--skip", "1", "--out", str(claim)]
    assert main(words) == 0
    made = {path: path.stat().st_mtime_ns for path in (work / "claim").rglob("*.safetensors")}
    assert len([path for path in made if path.parent.name == "_router"]) == 5
    rows = json.loads(claim.read_text("utf-8"))["rows"]
    assert {row["name"] for row in rows} == {PAPERS, *OTHERS.values()}
    assert {row["group"].partition(",")[0] for row in rows} == {"iid", "ood", "composite", "likely"}
    assert main(words) == 0 and json.loads(claim.read_text("utf-8"))["rows"] == rows
    assert {path: path.stat().st_mtime_ns for path in made} == made

    first = {name: pair for name, pair in lora_flow_claim.TASKS.items() if "capitals" in name}
    (pair,) = [one for one in first.items() if one[1].adapters == ("fix_punct", "true_case")]
    monkeypatch.setattr(lora_flow_claim, "TASKS", dict([pair]))
    monkeypatch.setattr(lora_flow_claim, "GATE", "--steps 1 --batch-rows 2 --max-tokens 200")
    words = ["lora_flow_claim", "--data", str(data), "--work", str(work / "flow"), "--rows", "2"]
    words += ["--seeds", "0,1", "--quantization", "none", "--out", str(tmp_path / "flow.json")]
    assert main(words) == 0
    table = json.loads((tmp_path / "flow.json").read_text("utf-8"))["table"]
    counts = [len(table[system]["score"]["by_task"][pair[0]]) for system in ("lora_flow", "base")]
    assert counts == [2, 1]
    assert {"by_task", "lora_flow_minus"} < set(table["lorahub"]["score"])
    made = {path: path.stat().st_mtime_ns for path in (work / "flow").rglob("*.safetensors")}
    assert len(made) == 2 and main(words) == 0
    assert {path: path.stat().st_mtime_ns for path in made} == made, "what is there stays"

    monkeypatch.setattr(lora_hub_claim, "ADAPTERS", 2)
    monkeypatch.setattr(lora_hub_claim, "RECIPE", f"--rank 2 --steps 1 {pace}")
    words = ["lora_hub_claim", "--data", str(data), "--work", str(work / "hub"), "--rows", "2"]
    words += ["--tasks", "mbpp", "--seeds", "0,1", "--quantization", "none"]
    assert main([*words, "--out", str(tmp_path / "hub.json")]) == 0
    table = json.loads((tmp_path / "hub.json").read_text("utf-8"))["table"]
    assert [len(row["score"]["by_task"]["mbpp"]) for row in table.values()] == [2] * 5


def test_an_answer_of_a_spoiled_row_is_whole_and_its_question_is_not(tmp_path):
    for name, row in {
        "fix_punct": {"inputs": "Add it", "targets": "Well, so be it."},
        "wiki_split": {
            "inputs": "A fox ; it ran .\n\nRewrite the above as two sentences.",
            "targets": "A fox . It ran .",
        },
        "word_segment": {"inputs": "Add it", "targets": "Is it so?"},
        "para_crawl_enes": {
            "inputs": 'How do you say "The Fox" in Spanish?',
            "targets": "El zorro",
        },
    }.items():
        (tmp_path / name).mkdir()
        others = [{"inputs": "What language is this?", "targets": "x" * 300}]
        text = "\n".join(map(json.dumps, [row, *others]))
        (tmp_path / name / "dev.jsonl").write_text(text)
    found = {name: pair.rows(tmp_path, "dev") for name, pair in lora_flow_claim.TASKS.items()}
    assert {
        name: [row.inputs.rpartition("\n")[2] for row in rows] for name, rows in found.items()
    } == {
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
