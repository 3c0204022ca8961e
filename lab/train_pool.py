"""Train what the next pool lacks: its adapters in the plan's order, then gates over all of them.

    python -m lab train_pool --data DATA --work WORK

Each is trained in `--work` and copied beside `plan.jsonl` when it is complete; a run that is killed
goes on from its last checkpoint. Several of these runs may share one `--work`.
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
from typing import Annotated

import typer

from lab.harness import Data, Work
from ramole_core.settings import REPOSITORY

SHIPPED = REPOSITORY / "adapters"
Pool = Annotated[Path, typer.Option(help="Folder of the plan and of what is finished.")]


def main(data: Data, work: Work, out: Pool = Path(__file__).parent / "next_pool") -> None:
    """Train what the plan names, in its order, until nothing is left."""
    work.mkdir(parents=True, exist_ok=True)
    plan = [json.loads(line) for line in (out / "plan.jsonl").read_text("utf-8").splitlines()]
    for planned in plan:
        if "name" in planned:
            _once(planned["name"], partial(train, planned, data=data), work=work, out=out)
    names = sorted(one.name for one in out.iterdir() if (one / "adapter_config.json").is_file())
    if {one["name"] for one in plan if "name" in one} <= set(names):
        for planned in plan:
            if "method" in planned:
                of_all = partial(train_gate, planned, names, data=data)
                _once(planned["folder"], of_all, work=work, out=out)


def _once(name: str, train: Callable[..., None], *, work: Path, out: Path) -> None:
    """Train what is not there, unless another run does."""
    with (work / f"{name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        if not (out / name).exists():
            train(work=work, out=out)


def train_gate(planned: dict, names: Sequence[str], *, data: Path, work: Path, out: Path) -> None:
    """Train a method's own weights over these adapters, or those that the plan names."""
    folder, retriever = work / planned["folder"], out / "_retriever"
    if not retriever.exists():  # a row's adapters are found as they are served
        retriever.symlink_to(SHIPPED / retriever.name)
    command = [sys.executable, "-m", "ramole_core", "train", "method", planned["method"]]
    command += ["--data", str(data), "--out", str(folder), "--adapters"]
    command += [planned.get("adapters") or ",".join(names), *shlex.split(planned["options"])]
    here = {"RAMOLE_ADAPTERS_DIR": str(out), "RAMOLE_QUANTIZATION": "int4"}
    _run(command, folder, out, env=os.environ | here)


def train(planned: dict, *, data: Path, work: Path, out: Path) -> None:
    """Train one; licence, description and examples are the shipped adapter's where it has none."""
    name = planned["name"]
    folder, shipped = work / name, SHIPPED / name
    record = shipped / "train.json"
    known = json.loads(record.read_text("utf-8")) if record.is_file() else {}
    known.update(planned)
    own = out / "examples" / f"{name}.jsonl"
    folder.mkdir(exist_ok=True)
    shutil.copy(own if own.is_file() else shipped / "examples.jsonl", folder / "examples.jsonl")
    text = work / f"{name}.txt"
    text.write_text(known["description"], "utf-8")
    command = [sys.executable, "-m", "ramole_core", "train", "adapter", "--quantization", "int4"]
    command += ["--data", str(data / name), "--out", str(folder), "--description", str(text)]
    command += ["--licence", known["licence"], *shlex.split(known["options"])]
    _run(command, folder, out)


def _run(
    command: Sequence[str], folder: Path, out: Path, *, env: Mapping[str, str] | None = None
) -> None:
    """Run the training, and copy what it made beside the plan."""
    if subprocess.run(command, env=env).returncode:
        raise typer.Exit(1)
    part = out / f".{folder.name}"
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(folder, part, ignore=shutil.ignore_patterns(".*"))
    part.rename(out / folder.name)
