"""Train the adapters of the next pool that are not there yet, in the order of its plan.

    python -m lab train_pool --data DATA --work WORK

Each is trained in `--work` and copied beside `plan.jsonl` when it is complete; a run that is killed
goes on from its last checkpoint. Several of these runs may share one `--work`.
"""

import fcntl
import json
import shlex
import shutil
import subprocess
import sys
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
    for line in (out / "plan.jsonl").read_text("utf-8").splitlines():
        planned = json.loads(line)
        with (work / f"{planned['name']}.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # another run trains it
                continue
            if not (out / planned["name"]).exists():
                train(planned, data=data, work=work, out=out)


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
    if subprocess.run(command).returncode:
        raise typer.Exit(1)
    part = out / f".{name}"
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(folder, part, ignore=shutil.ignore_patterns(".*"))
    part.rename(out / name)
