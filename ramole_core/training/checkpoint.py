"""Checkpoints: parameters, AdamW's moments, generator and step in one safetensors file.

Written beside its final name and renamed, so a killed run finds the old one or the new one, whole.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ramole_core.errors import RamoleError
from ramole_core.whole_file import replacing


@dataclass
class Progress:
    """Where a run stands."""

    step: int = 0
    """Steps that are done."""
    seconds: float = 0.0
    """Wall-clock time so far, over all its runs."""
    train_losses: list[float] = field(default_factory=list)
    """Loss of every step."""
    dev_losses: list[dict[str, float]] = field(default_factory=list)
    """One entry a measurement: `step` and a loss for each name that is measured."""


def save_checkpoint(
    path: Path,
    parameters: dict[str, nn.Parameter],
    *,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    recipe: str,
) -> None:
    """Write everything that `restore_checkpoint` needs; `recipe` guards against a mix-up."""
    tensors: dict[str, Tensor] = {"generator": torch.get_rng_state()}
    for name, parameter in parameters.items():
        tensors[f"parameter/{name}"] = parameter.detach()
        for moment, value in optimizer.state[parameter].items():
            tensors[f"{moment}/{name}"] = value.detach().clone()
    metadata = {"progress": json.dumps(asdict(progress)), "recipe": recipe}
    with replacing(path) as part:
        save_file({k: v.contiguous() for k, v in tensors.items()}, part, metadata=metadata)


def restore_checkpoint(
    path: Path,
    parameters: dict[str, nn.Parameter],
    *,
    optimizer: torch.optim.Optimizer,
    recipe: str,
) -> Progress:
    """Put a run back to where its checkpoint was taken; a fresh Progress when there is none."""
    if not path.is_file():
        return Progress()
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        if metadata["recipe"] != recipe:
            raise RamoleError(
                f"{path} belongs to another recipe; delete its folder to start afresh, or use the "
                "settings it was started with."
            )
        for name, parameter in parameters.items():
            with torch.no_grad():
                parameter.copy_(file.get_tensor(f"parameter/{name}"))
            optimizer.state[parameter] = {
                moment: file.get_tensor(f"{moment}/{name}")
                for moment in ("step", "exp_avg", "exp_avg_sq")
            }
        torch.set_rng_state(file.get_tensor("generator"))
        return Progress(**json.loads(metadata["progress"]))
