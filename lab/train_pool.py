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
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal

import typer

from lab.harness import Data, Work
from ramole_core.errors import RamoleError
from ramole_core.settings import REPOSITORY

SHIPPED = REPOSITORY / "adapters"
PLAN = "plan.jsonl"
Pool = Annotated[Path, typer.Option(help="Folder of the plan and of what is finished.")]
Quantization = Annotated[
    Literal["nf4", "int4", "none"], typer.Option(help="How the base is rounded.")
]


def main(data: Data, work: Work, out: Pool) -> None:
    """Train what the plan names, in its order, until nothing is left."""
    if not (out / PLAN).is_file():
        out.mkdir(parents=True, exist_ok=True)
        shutil.copy(Path(__file__).with_name("pool_plan.jsonl"), out / PLAN)
    train_plan(out, data=data, work=work)


def train_plan(
    pool: Path,
    *,
    data: Path,
    work: Path,
    quantization: Quantization = "int4",
    env: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Train what the plan in `pool` names and what is not there; `env` over the environment."""
    work.mkdir(parents=True, exist_ok=True)
    retriever = pool / "_retriever"
    if not retriever.exists():  # a row's adapters are found as they are served
        retriever.symlink_to(SHIPPED / retriever.name)
    here = {"RAMOLE_QUANTIZATION": quantization, "RAMOLE_ADAPTERS_DIR": str(pool)}
    env = {**os.environ, **here, **env}
    plan = [json.loads(line) for line in (pool / PLAN).read_text("utf-8").splitlines()]
    once = partial(_once, pool=pool, work=work, env=env)
    for planned in plan:
        if "name" in planned:
            once(planned["name"], partial(_adapter, planned, quantization, data=data, pool=pool))
    names = sorted(file.parent.name for file in pool.glob("[!._]*/adapter_config.json"))
    if {one["name"] for one in plan if "name" in one} <= set(names):
        for planned in plan:
            if "method" in planned:
                once(planned["folder"], partial(_gate, planned, names, data=data))
    wanted = [one.get("name") or one["folder"] for one in plan]
    if left := [name for name in wanted if not (pool / name).exists()]:
        raise RamoleError(f"Another run is still training {', '.join(left)}; run it again later.")


def _once(
    name: str,
    command: Callable[[Path], Sequence[str]],
    *,
    pool: Path,
    work: Path,
    env: Mapping[str, str],
) -> None:
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
        trained = subprocess.run(
            [sys.executable, "-m", "ramole_core", "train", *command(folder), "--overwrite"], env=env
        )
        if trained.returncode:
            raise typer.Exit(1)
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(folder, part, ignore=shutil.ignore_patterns(".*"))
        part.rename(pool / name)


def _gate(planned: dict, names: Sequence[str], folder: Path, *, data: Path) -> list[str]:
    """The training of a method's own weights over these adapters, or those that the plan names."""
    command = ["method", planned["method"], "--data", str(data), "--out", str(folder)]
    adapters = planned.get("adapters") or ",".join(names)
    return [*command, "--adapters", adapters, *shlex.split(planned["options"])]


def _adapter(
    planned: dict, quantization: Quantization, folder: Path, *, data: Path, pool: Path
) -> list[str]:
    """The training of one adapter; licence, description and examples are the shipped one's where
    the plan has none."""
    name = planned["name"]
    shipped = SHIPPED / name
    record = shipped / "train.json"
    known = json.loads(record.read_text("utf-8")) if record.is_file() else {}
    known.update(planned)
    shutil.copy(shipped / "examples.jsonl", folder / "examples.jsonl")
    text = folder.with_suffix(".txt")
    text.write_text(known["description"], "utf-8")
    command = ["adapter", "--quantization", quantization]
    command += ["--data", str(data / name), "--out", str(folder)]
    command += ["--description", str(text), "--licence", known["licence"]]
    return [*command, *shlex.split(known["options"])]
