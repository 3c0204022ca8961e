"""What every measurement shares: its options, the system as it is served, and the file it writes.

Rows of the test splits are read by `--split test` and `--split test2` alone (`evaluate`,
`parts_table`).
"""

import hashlib
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ramole_core.settings import REPOSITORY, load_settings
from ramole_core.terminal.recorded_command import recorded_command

if TYPE_CHECKING:
    from ramole_core.base.model import BaseModel
    from ramole_core.ramole import Ramole
    from ramole_core.training.rows import Row, Task


def use_threads(threads: int) -> int:
    """Compute on so many CPU threads; 0: as many as torch chooses."""
    if threads:
        import torch

        torch.set_num_threads(threads)
    return threads


DATA = Path("data")
CLONE = (REPOSITORY / "pyproject.toml").is_file()
RESULTS = REPOSITORY / "results" if CLONE else Path("results")
"""Where measured files go; an installed package is not written into."""

Data = Annotated[Path, typer.Option(help="Folder of task folders.")]
Split = Annotated[
    Literal["dev", "test", "test2"],
    typer.Option(help="Dev for every choice; test and test2 once each."),
]
Rows = Annotated[int, typer.Option(help="Dev rows of each task.")]
Skip = Annotated[int, typer.Option(help="Dev rows of each task that are left out before them.")]
Tasks = Annotated[str, typer.Option(help="Tasks, comma separated.")]
Systems = Annotated[str, typer.Option(help="Comma separated; METHOD@OPTION=VALUE too.")]
Methods = Annotated[str, typer.Option(help="Methods, comma separated.")]
Seed = Annotated[int, typer.Option(help="Seed of everything that is drawn.")]
Threads = Annotated[int, typer.Option(help="CPU threads; 0: torch's choice.", callback=use_threads)]
"""Set before the measurement begins."""
Work = Annotated[Path, typer.Option(help="Where finished work is kept; a run goes on from it.")]
Out = Annotated[Path, typer.Option(help="The JSON file.")]

Steps = Annotated[int, typer.Option(help="Optimiser steps of each training.")]
BatchRows = Annotated[int, typer.Option(help="Rows a step.")]
LearningRate = Annotated[float, typer.Option(help="Peak learning rate.")]
MaxTokens = Annotated[int, typer.Option(help="Longer training rows are left out.")]


def words(text: str) -> list[str]:
    """The names of a comma separated list."""
    return [word.strip() for word in text.split(",") if word.strip()]


def read_tasks(data: Path, names: Sequence[str], *, rows: int, skip: int = 0) -> dict[str, "Task"]:
    """The tasks by name, with `rows` of their dev rows after the first `skip`.

    Raises RamoleError for a task that is not there or has no such rows.
    """
    from lab.evaluation.evaluate import read_rows
    from ramole_core.training.rows import read_task

    drawn = read_rows(data, names, split="dev", count=rows, skip=skip)
    return {
        one.task: replace(read_task(data / one.task), dev=one.rows, metric=one.metric)
        for one in drawn
    }


def checksum(file: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def digest(facts: Mapping[str, object], length: int) -> str:
    """The first digits of the SHA-256 of some facts."""
    return hashlib.sha256(json.dumps(dict(facts), sort_keys=True).encode()).hexdigest()[:length]


def spread(values: Sequence[float], digits: int = 4) -> dict[str, float]:
    """Median, least and most."""
    found = {"median": statistics.median(values), "least": min(values), "most": max(values)}
    return {name: round(value, digits) for name, value in found.items()}


def base_folder() -> Path:
    """The folder of the base that the settings name, fetched where it is not there."""
    from ramole_core.base.fetch import fetch_base

    usual = load_settings()
    return fetch_base(usual.base_model, data_dir=usual.data_dir)


def base_name() -> str:
    """The base as the settings name it; of a folder or file its last name."""
    named = load_settings().base_model
    return Path(named).name if Path(named).exists() else named


@contextmanager
def served(*, trained: Path | None = None, **settings: Any) -> Iterator["Ramole"]:
    """The system as it is served, with a data folder of its own; `settings` beside the usual, and
    the weights in the folder `trained` in place of the user's."""
    from ramole_core.ramole import Ramole

    mine, base = (
        trained or load_settings().trained_dir,
        settings.pop("base_model", None) or base_folder(),
    )
    with TemporaryDirectory() as folder:
        own = load_settings(data_dir=folder, base_model=str(base), chroma_url=None, **settings)
        if mine.is_dir():  # what the user trained is measured too
            own.trained_dir.symlink_to(mine.resolve(), target_is_directory=True)
        with Ramole(own) as ramole:
            ramole.load()
            yield ramole


def facts_of(ramole: "Ramole") -> dict[str, object]:
    """What the answers of a loaded system depend on: the base as it is served, and checksums."""
    facts = ramole.model_facts
    assert facts is not None
    return {
        "base_model": base_name(),
        "base_checksum": facts.checksum,
        "quantization": facts.quantization,
        "dtype": facts.dtype,
        "adapters": {card.name: card.sha256 for card in ramole.pool.cards()},
        "weights": ramole.weights_checksums(),
        **retrieval_facts(ramole),
    }


def retrieval_facts(ramole: "Ramole") -> dict[str, object]:
    """What decides which adapters are found: encoder, calibration, and every card's content and
    words."""
    from ramole_core.retrieval.calibration import FILE
    from ramole_core.retrieval.card_vector import WORDS, card_texts

    calibration = load_settings().trained("_base") / FILE
    cards = {card.name: (card.content, card_texts(card)) for card in ramole.pool.cards()}
    return {
        "retriever_checksum": ramole.retriever.encoder_checksum,
        "calibration_checksum": checksum(calibration) if calibration.is_file() else None,
        "cards": digest({"words": WORDS, **cards}, 16),
    }


def run_product(command: Sequence[str], environment: Mapping[str, str]) -> None:
    """Run a command of the product, with these variables beside this process's; raises typer.Exit
    where it fails, which has said why."""
    words = [sys.executable, "-m", "ramole_core", *command]
    if subprocess.run(words, env=os.environ | environment).returncode:
        raise typer.Exit(1)


def write_rows(folder: Path, **splits: "Sequence[Row]") -> None:
    """Write a task's folder, a file for each split."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, rows in splits.items():
        lines = [json.dumps({"inputs": row.inputs, "targets": row.targets}) for row in rows]
        (folder / f"{split}.jsonl").write_text("\n".join(lines), "utf-8")


class Kept:
    """Finished work, a JSON file each, so that a run goes on where it was stopped."""

    def __init__(self, folder: Path):
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def get(self, name: str, make: Callable[[], object]) -> Any:
        """What is kept under this name, made where it is not there."""
        file = self._folder / f"{name}.json"
        if not file.is_file():
            write_report(file, {"made": make()})
        return json.loads(file.read_text("utf-8"))["made"]


class Results:
    """The JSON file of a measurement: how it was made, then what was found; whole at any time."""

    def __init__(
        self,
        out: Path,
        facts: Mapping[str, object] = MappingProxyType({}),
        *,
        base: "BaseModel | None" = None,
        **more: object,
    ):
        """`facts`, `more`: what else the numbers depend on, such as checksums, sizes and seeds."""
        from lab.benchmarks.machine import machine_line
        from ramole_core.training.card import versions

        self._out = out
        self.held: dict[str, object] = {
            "command": recorded_command("lab"),
            "date": date.today().isoformat(),
            "machine": machine_line(),
            "versions": versions(),
        }
        if base is not None:
            self.held |= {
                "base_model": base.name,
                "base_checksum": base.checksum,
                "quantization": base.quantization,
            }
        self.held |= {**facts, **more}

    def take_over(self, *parts: str, where: Sequence[str]) -> bool:
        """Go on with these parts of the file as it is; whether it was made with the same facts of
        the names `where`, or is not there."""
        held = json.loads(self._out.read_text("utf-8")) if self._out.is_file() else {}
        facts = json.loads(json.dumps(self.held))  # tuples are lists in a file
        if held and any(held.get(name) != facts[name] for name in where):
            return False
        self.held |= {part: held[part] for part in parts if part in held}
        return True

    def write(self, **found: object) -> None:
        """Take over what was found, and write the file."""
        self.held |= found
        write_report(self._out, self.held)


def write_report(out: Path, report: Mapping[str, object]) -> None:
    """Write a file of results, whole or not at all."""
    from ramole_core.pool.manifest import write_json

    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, report)
