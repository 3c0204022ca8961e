"""The router's folder: `router.safetensors` in bf16, scale folded, and `router_config.json`."""

import json
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file

from ramole_core.base.model import BaseModel
from ramole_core.composition import Router
from ramole_core.training.card import versions
from ramole_core.training.checkpoint import Progress
from ramole_core.training.recipe import RouterRecipe


def write_router(
    folder: Path,
    router: Router,
    *,
    recipe: RouterRecipe,
    trained_on: tuple[str, ...],
    base: BaseModel,
    progress: Progress,
    command: str,
) -> None:
    """Write a router whose scale is folded into B_r already, with the record of its run."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for path, module in router.modules.items():
        tensors[f"{path}.A_r"] = module.A.detach().to("cpu", torch.bfloat16).contiguous()
        tensors[f"{path}.B_r"] = module.B.detach().to("cpu", torch.bfloat16).contiguous()
    save_file(tensors, folder / "router.safetensors", metadata={"format": "pt"})
    record = {
        "schema": 1,
        "rank": router.rank,
        "recipe": asdict(recipe),
        "trained_on": list(trained_on),
        "base_model": base.name,
        "base_checksum": base.checksum,
        "quantization": base.quantization,
        "command": command,
        "versions": versions(),
        "seconds": round(progress.seconds, 1),
        "train_losses": [round(loss, 4) for loss in progress.train_losses],
        "dev_losses": progress.dev_losses,
    }
    text = json.dumps(record, indent=1) + "\n"
    (folder / "router_config.json").write_text(text, encoding="utf-8")
