"""A method's folder of trained weights: tensors in bf16, and how they were trained."""

import json
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file

from ramole_core.base.model import BaseModel
from ramole_core.composition import Trained
from ramole_core.composition.trained import config_file, weights_file
from ramole_core.methods import find_row
from ramole_core.training.card import versions
from ramole_core.training.checkpoint import Progress
from ramole_core.training.recipe import MethodRecipe


def write_weights(
    folder: Path,
    trained: Trained,
    *,
    recipe: MethodRecipe,
    base: BaseModel,
    progress: Progress,
    command: str,
) -> None:
    """Write the tensors as `decide` reads them, with the record of their run."""
    row = find_row(recipe.method)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: tensor.detach().to("cpu", torch.bfloat16).contiguous()
        for name, tensor in trained.tensors.items()
    }
    save_file(tensors, weights_file(folder, row), metadata={"format": "pt"})
    record = {
        "schema": 2,
        "recipe": asdict(recipe),
        "trained_on": list(trained.adapters.values()),
        **trained.config,
        "base_model": base.name,
        "base_checksum": base.checksum,
        "quantization": base.quantization,
        "command": command,
        "versions": versions(),
        "seconds": round(progress.seconds, 1),
        "train_losses": [round(loss, 4) for loss in progress.train_losses],
        "dev_losses": progress.dev_losses,
    }
    config_file(folder, row).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
