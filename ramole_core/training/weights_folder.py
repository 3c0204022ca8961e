"""A folder of trained weights: written whole, with the record of its run."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file
from torch import Tensor

from ramole_core.base.model import BaseModel
from ramole_core.composition import Trained
from ramole_core.composition.trained import config_file, weights_file
from ramole_core.methods import find_row
from ramole_core.settings import PLACING
from ramole_core.training.checkpoint import Progress
from ramole_core.training.recipe import MethodRecipe

if TYPE_CHECKING:
    from ramole_core.training.loop import TrainingRun

CHECKPOINT = PLACING.parent.name
"""The folder of a run that has not ended, inside the weights' folder."""
PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "safetensors")
LAST = ("manifest.json", "retriever.json")
"""Files that are written last, and so mark a folder as complete."""


@contextmanager
def weights_folder(out_dir: Path) -> Iterator[Path]:
    """Write a finished run: its files appear in `out_dir` together, once all are written, and the
    checkpoint is deleted. Until all are in place the folder counts as one without weights, so the
    same command takes up a run that is killed here."""
    kept = out_dir / CHECKPOINT
    unfinished = kept / "finished"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    yield unfinished
    placing = out_dir / PLACING
    placing.mkdir(exist_ok=True)
    for file in sorted(unfinished.iterdir(), key=lambda file: (file.name in LAST, file.name)):
        os.replace(file, out_dir / file.name)
    placing.rmdir()
    shutil.rmtree(kept, ignore_errors=True)


def write_weights(
    folder: Path,
    trained: Trained,
    recipe: MethodRecipe,
    *,
    base: BaseModel,
    progress: Progress,
    run: "TrainingRun",
) -> None:
    """Write a method's tensors as `decide` reads them, with the record of their run."""
    record = {
        "recipe": asdict(recipe),
        "trained_on": list(trained.adapters.values()),
        **trained.config,
    }
    row = find_row(recipe.method)
    write_tensors(weights_file(folder, row), trained.tensors, torch.bfloat16)
    write_json(config_file(folder, row), record | method_facts(base, progress, run.command))


def method_facts(base: BaseModel, progress: Progress, command: str) -> dict[str, object]:
    """Facts of base and run for the record of a method's weights."""
    return {
        "schema": 2,
        "base_model": base.name,
        "base_checksum": base.checksum,
        "quantization": base.quantization,
        "dtype": str(base.dtype).removeprefix("torch."),
        "command": command,
        **run_facts(progress),
    }


def write_tensors(file: Path, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> None:
    """Write a safetensors file in this dtype."""
    held = {name: t.detach().to("cpu", dtype).contiguous() for name, t in tensors.items()}
    save_file(held, file, metadata={"format": "pt"})


def write_json(file: Path, record: Mapping[str, object]) -> None:
    """Write a record, a line a value."""
    file.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def versions() -> dict[str, str]:
    """Versions of the packages that measured numbers depend on."""
    return {package: version(package) for package in PACKAGES}


def run_facts(progress: Progress, *, measured: str = "dev_losses") -> dict[str, object]:
    """Facts of a run for its record; measurements under `measured`."""
    return {
        "versions": versions(),
        "seconds": round(progress.seconds, 1),
        "kept_step": progress.kept_step,
        "train_losses": [round(loss, 4) for loss in progress.train_losses],
        measured: progress.dev_losses,
    }
