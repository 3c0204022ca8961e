"""A pool by its plan: adapters, then a gate over them, each once."""

import json
import os
import subprocess

from lab import train_pool
from lab.__main__ import main
from ramole_core import cli
from ramole_core.settings import REPOSITORY
from tests.few_prompts import few_reference_prompts  # noqa: F401  a fixture

TASKS = ("true_case", "fix_punct")
PACE = "--batch-rows 2 --max-tokens 64"


def in_process(command, *, env):
    """The command without the seconds in which a process begins."""
    before = dict(os.environ)
    os.environ.update(env)
    try:
        return subprocess.CompletedProcess(command, cli.main(command[3:]))
    finally:
        os.environ.clear()
        os.environ.update(before)


def test_adapters_and_a_gate_of_a_tiny_base_are_trained_once(tiny_nf4, tmp_path, monkeypatch):
    data, pool = tmp_path / "data", tmp_path / "pool"
    plan = [{"name": name, "options": f"--rank 2 --steps 2 {PACE}"} for name in TASKS]
    plan += [{"method": "ramole", "folder": "_router", "options": f"--steps 1 {PACE}"}]
    for name in TASKS:
        (data / name).mkdir(parents=True)
        for split in ("train", "dev"):
            rows = [{"inputs": f"{name} {split} {n}?", "targets": f"{name} {n}"} for n in range(9)]
            (data / name / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    pool.mkdir()
    (pool / "plan.jsonl").write_text("\n".join(map(json.dumps, plan)))
    monkeypatch.setenv("RAMOLE_BASE_MODEL", str(tiny_nf4))
    monkeypatch.setenv("RAMOLE_DATA_DIR", str(tmp_path / "kept"))
    monkeypatch.setenv("RAMOLE_DEVICE", "cpu")
    monkeypatch.setattr(train_pool, "QUANTIZATION", "none")
    monkeypatch.setattr(subprocess, "run", in_process)
    words = ["train_pool", "--data", str(data), "--work", str(tmp_path / "work")]
    assert main([*words, "--out", str(pool)]) == 0
    made = {path: path.stat().st_mtime_ns for path in pool.glob("[!.]*/*.safetensors")}
    assert {path.parent.name for path in made} >= {*TASKS, "_router"}
    shown = (train_pool.SHIPPED / "true_case" / "examples.jsonl").read_bytes()
    assert (pool / "true_case" / "examples.jsonl").read_bytes() == shown
    assert main([*words, "--out", str(pool)]) == 0
    assert {path: path.stat().st_mtime_ns for path in made} == made, "what is there stays"


def test_the_plan_names_the_pool_that_ships():
    plan = (REPOSITORY / "lab" / "pool_plan.jsonl").read_text("utf-8")
    rows = [json.loads(line) for line in plan.splitlines()]
    shipped = {path.parent.name for path in train_pool.SHIPPED.glob("[!_]*/train.json")}
    assert {one["name"] for one in rows if "name" in one} == shipped
    folders = {path.name for path in train_pool.SHIPPED.iterdir()}
    assert {one["folder"] for one in rows if "folder" in one} <= folders
