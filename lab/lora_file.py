"""An adapter of made-up numbers in a folder, as PEFT saves one."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor


def write_lora(
    folder: Path,
    modules: Mapping[str, tuple[Tensor, Tensor]],
    *,
    scale: float = 1.0,
    dtype: torch.dtype = torch.bfloat16,
) -> Path:
    """A [r, i] and B [o, r] of each module, whose update is `scale` times B A."""
    tensors = {
        f"base_model.model.{path}.lora_{half}.weight": value.to(dtype).contiguous()
        for path, pair in modules.items()
        for half, value in zip("AB", pair, strict=True)
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    ranks = {path: len(A) for path, (A, _) in modules.items()}
    most = max(ranks.values())
    others = {path: r for path, r in ranks.items() if r != most}
    said = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": most,
        "lora_alpha": scale * most,
        "rank_pattern": others,
        "alpha_pattern": {path: scale * r for path, r in others.items()},
        "target_modules": sorted({path.rpartition(".")[2] for path in ranks}),
        "bias": "none",
    }
    (folder / "adapter_config.json").write_text(json.dumps(said), "utf-8")
    return folder
