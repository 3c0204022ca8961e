"""Train a pool by its plan: adapters in the plan's order, then gates over all of them.

    python -m lab train_pool --data DATA --work WORK --out POOL

`POOL/plan.jsonl` is the plan, that of the shipped pool where there is none. Each is trained in
`--work` and copied beside the plan when it is complete; a run that is killed goes on from its last
checkpoint. Several of these runs may share one `--work`.
"""

import fcntl
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from lab.harness import Data, Work
from ramole_core.errors import RamoleError
from ramole_core.settings import REPOSITORY

SHIPPED = REPOSITORY / "adapters"
PLAN = "plan.jsonl"
QUANTIZATION = "int4"
Pool = Annotated[Path, typer.Option(help="Folder of the plan and of what is finished.")]


def main(data: Data, work: Work, out: Pool) -> None:
    """Train what the plan names, in its order, until nothing is left."""
    for folder in (out, work):
        folder.mkdir(parents=True, exist_ok=True)
    if not (out / PLAN).is_file():
        shutil.copy(Path(__file__).with_name("pool_plan.jsonl"), out / PLAN)
    retriever = out / "_retriever"
    if not retriever.exists():  # a row's adapters are found as they are served
        retriever.symlink_to(SHIPPED / retriever.name)
    plan = [json.loads(line) for line in (out / PLAN).read_text("utf-8").splitlines()]
    adapters = [one for one in plan if "name" in one]
    for planned in adapters:
        _once(planned["name"], _adapter(planned, data, work), pool=out, work=work)
    names = sorted(file.parent.name for file in out.glob("[!._]*/adapter_config.json"))
    if {one["name"] for one in adapters} <= set(names):
        for planned in plan:
            if "method" in planned:
                _once(planned["folder"], _gate(planned, names, data), pool=out, work=work)
    wanted = [one.get("name") or one["folder"] for one in plan]
    if left := [name for name in wanted if not (out / name).exists()]:
        raise RamoleError(f"Another run is still training {', '.join(left)}; run it again later.")


def _once(name: str, command: Sequence[str], *, pool: Path, work: Path) -> None:
    """Train what is not there, unless another run does, and copy it beside the plan."""
    with (work / f"{name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        if (pool / name).exists():
            return
        folder, part = work / name, pool / f".{name}"
        folder.mkdir(exist_ok=True)
        if (SHIPPED / name / "examples.jsonl").is_file():
            shutil.copy(SHIPPED / name / "examples.jsonl", folder)
        words = [sys.executable, "-m", "ramole_core", "train", *command]
        env = {"RAMOLE_QUANTIZATION": QUANTIZATION, "RAMOLE_ADAPTERS_DIR": str(pool)}
        done = subprocess.run(
            [*words, "--out", str(folder), "--overwrite"], env={**os.environ, **env}
        )
        if done.returncode:
            raise typer.Exit(1)
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(folder, part, ignore=shutil.ignore_patterns(".*"))
        part.rename(pool / name)


def _gate(planned: dict, names: Sequence[str], data: Path) -> list[str]:
    """The training of a method's own weights over these adapters, or those that the plan names."""
    adapters = planned.get("adapters") or ",".join(names)
    command = ["method", planned["method"], "--data", str(data), "--adapters", adapters]
    return [*command, *shlex.split(planned["options"])]


def _adapter(planned: dict, data: Path, work: Path) -> list[str]:
    """The training of one adapter; its licence and description are the shipped one's where the
    plan has none."""
    name = planned["name"]
    record = SHIPPED / name / "train.json"
    known = json.loads(record.read_text("utf-8")) if record.is_file() else {}
    known.update(planned)
    text = work / f"{name}.txt"
    text.write_text(known["description"], "utf-8")
    command = ["adapter", "--quantization", QUANTIZATION, "--data", str(data / name)]
    command += ["--description", str(text), "--licence", known["licence"]]
    return [*command, *shlex.split(known["options"])]
