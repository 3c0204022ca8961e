"""Repeat the comparison on another base: adapters and gates of its own, calibration, dev rows.

    python -m lab other_base --data DATA --tasks A,B,C

The base is that of RAMOLE_BASE_MODEL. What is finished stays in `--work`: the same command goes on
where it was stopped. One recipe is for all adapters, and one for each method's own weights.
"""

import json
from pathlib import Path
from typing import Annotated

import typer

from lab import harness
from lab.train_pool import PLAN, Quantization, train_plan
from ramole_core.terminal.recorded_command import recorded_command

SYSTEMS = "base,perfect,selection,similarity,mixture,ramole,ramole_plus"
ADAPTER = (
    "--rank 4 --modules attention,mlp --until '2 epochs' --patience 5 --measure-every 50 "
    "--batch-rows 8 --learning-rate 2e-3 --max-tokens 112"
)
GATE = (
    "--until 200 --learning-rate 2e-3 --batch-rows 8 --max-tokens 160 --dev-rows 72 "
    "--measure-every 20 --patience 4"
)
Recipe = Annotated[str, typer.Option(help="Options of each training, as its command takes them.")]


def main(
    data: harness.Data,
    tasks: harness.Tasks,
    work: harness.Work = Path("other_base"),
    adapter: Recipe = ADAPTER,
    methods: Annotated[str, typer.Option(help="Methods whose weights are trained.")] = "ramole",
    gate: Recipe = GATE,
    rows: harness.Rows = 20,
    skip: harness.Skip = 80,
    systems: Annotated[str, typer.Option(help="Comma separated.")] = SYSTEMS,
    situations: Annotated[str, typer.Option(help="Comma separated.")] = "iid,ood",
    quantization: Quantization = "int4",
    out: harness.Out = harness.RESULTS / "other_base.json",
) -> None:
    """Train what is missing for the configured base, and compare the systems on it."""
    names = harness.words(tasks)
    harness.read_tasks(data, names, rows=rows, skip=skip)  # that are missing are said here
    recipe = {"adapter": adapter, "methods": methods, "gate": gate, "quantization": quantization}
    work = work / harness.digest({"base": harness.base_name(), "names": names, **recipe}, 12)
    pool = work / "pool"
    plan: list[dict[str, str]] = [{"name": name, "options": adapter} for name in names]
    for method in harness.words(methods):
        folder = "_router" if method == "ramole" else f"_{method}"
        plan.append({"method": method, "folder": folder, "options": gate})
    pool.mkdir(parents=True, exist_ok=True)
    (pool / PLAN).write_text("\n".join(map(json.dumps, plan)), "utf-8")
    kept = {"RAMOLE_DATA_DIR": str(work / "data")}
    train_plan(pool, data=data, work=work / "training", quantization=quantization, env=kept)
    here = {**kept, "RAMOLE_ADAPTERS_DIR": str(pool), "RAMOLE_QUANTIZATION": quantization}
    if not (work / "data" / "trained" / "_base").is_dir():
        harness.run_product(["calibrate"], here)
    cells = ["--data", str(data), "--tasks", tasks, "--rows", str(rows), "--skip", str(skip)]
    cells += ["--systems", systems, "--situations", situations, "--quantization", quantization]
    harness.run_product(
        ["evaluate", *cells, "--work", str(work / "cells"), "--out", str(out)], here
    )
    made = {"command": recorded_command("lab"), "adapter": adapter, "gate": gate}
    harness.write_report(out, json.loads(out.read_text("utf-8")) | made)
