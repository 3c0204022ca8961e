"""Train the adapters of `lab/next_pool/plan.jsonl` that are not there yet, one after another.

Each is trained in `--work` and copied beside the plan when it is complete; a run that is killed
goes on from its last checkpoint. Several of these runs may share one `--work`.
"""

import fcntl
import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import typer

from lab.harness import Data, Work
from ramole_core.settings import REPOSITORY

POOL = Path(__file__).parent / "next_pool"
SHIPPED = REPOSITORY / "adapters"


def main(data: Data, work: Work) -> None:
    """Train what the plan names, in its order, until nothing is left."""
    work.mkdir(parents=True, exist_ok=True)
    for line in (POOL / "plan.jsonl").read_text("utf-8").splitlines():
        planned = json.loads(line)
        with (work / f"{planned['name']}.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # another run trains it
                continue
            if not (POOL / planned["name"]).exists():
                train(planned, data=data, work=work)


def train(planned: dict, *, data: Path, work: Path) -> None:
    """Train one; licence, description and examples are the shipped adapter's where it has none."""
    name = planned["name"]
    folder, shipped = work / name, SHIPPED / name
    record = shipped / "train.json"
    known = json.loads(record.read_text("utf-8")) if record.is_file() else {}
    known.update(planned)
    own = POOL / "examples" / f"{name}.jsonl"
    folder.mkdir(exist_ok=True)
    shutil.copy(own if own.is_file() else shipped / "examples.jsonl", folder / "examples.jsonl")
    text = work / f"{name}.txt"
    text.write_text(known["description"], "utf-8")
    command = [sys.executable, "-m", "ramole_core", "train", "adapter", "--quantization", "int4"]
    command += ["--data", str(data / name), "--out", str(folder), "--description", str(text)]
    command += ["--licence", known["licence"], *shlex.split(known["options"])]
    if subprocess.run(command).returncode:
        raise typer.Exit(1)
    shutil.copytree(folder, POOL / name, ignore=shutil.ignore_patterns(".*"))
