"""Checkpoints: tensors and the progress of a run in one safetensors file.

Written beside its final name and renamed, so a killed run finds the old one or the new one, whole.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import inf, isnan
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from ramole_core.errors import RamoleError
from ramole_core.whole_file import replacing


@dataclass
class Progress:
    """The progress of a run."""

    step: int = 0
    """Steps that are done."""
    seconds: float = 0.0
    """Wall-clock time so far, over all its runs."""
    train_losses: list[float] = field(default_factory=list)
    """Loss of every step."""
    dev_losses: list[dict[str, float]] = field(default_factory=list)
    """One entry a measurement: `step` and a loss for each name that is measured."""
    kept_step: int = 0
    """Step of the kept weights."""

    def stale(self, name: str) -> int:
        """Measurements since the one with the lowest loss of this name."""
        losses = [inf if isnan(one[name]) else one[name] for one in self.dev_losses]
        return len(losses) - 1 - losses.index(min(losses))


def save_checkpoint(
    path: Path, tensors: Mapping[str, Tensor], *, progress: Progress, facts: str
) -> None:
    """Write a checkpoint; `facts` guard against a mix-up."""
    metadata = {"progress": json.dumps(asdict(progress)), "facts": facts}
    with replacing(path) as part:
        save_file({k: t.contiguous() for k, t in tensors.items()}, part, metadata=metadata)


def restore_checkpoint(path: Path, *, facts: str) -> tuple[dict[str, Tensor], Progress]:
    """The tensors and the progress of a run; nothing and a fresh Progress where none was saved.

    Raises RamoleError where the run was started with other facts.
    """
    if not path.is_file():
        return {}, Progress()
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        if metadata.get("facts") != facts:
            raise RamoleError(
                f"{path} belongs to another recipe, base model or data; delete its folder to start "
                "afresh, or use what it was started with."
            )
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return tensors, Progress(**json.loads(metadata["progress"]))
