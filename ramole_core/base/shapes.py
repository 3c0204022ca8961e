"""The linear layers of a base model, from its config alone: no weight is read."""

import re
from functools import lru_cache
from pathlib import Path
from typing import TypeGuard

import torch
from torch import nn
from transformers import AutoConfig
from transformers.pytorch_utils import Conv1D

from ramole_core.base.architecture import model_class, text_prefix
from ramole_core.base.causal import check_causal
from ramole_core.base.mixtures import take_apart
from ramole_core.errors import RamoleError

ALIKE = ("FalconLinear",)
"""Classes of transformers that are a linear layer, written in another way."""
IN_BLOCK = re.compile(r"\.\d+\.")
"""A decoder block has a number in its path; embeddings and the head have none."""


def read_shapes(folder: Path) -> dict[str, tuple[int, int]]:
    """Module path -> (i, o) of every linear inside the decoder blocks, in the model's order.

    `nn.Linear` and GPT-2's Conv1D alike, and those of experts (`experts.py`); the head and the
    embeddings are left out. Builds the model of `folder/config.json` on the meta device, once for
    each folder and process. Raises RamoleError where that is no config of a causal language model.
    """
    config = folder / "config.json"
    if not config.is_file():
        raise RamoleError(f"{folder} has no config.json; give the folder of a language model.")
    try:
        return dict(_shapes_of(str(folder), config.stat().st_mtime_ns))
    except RamoleError:
        raise
    except Exception as error:  # each architecture checks its own config in its own way
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise RamoleError(
            f"{config} does not describe a causal language model that is known here "
            f"({reason.rstrip('.:')}); set RAMOLE_BASE_MODEL to another."
        ) from error


def is_linear(module: nn.Module) -> TypeGuard[nn.Linear]:
    """Whether a module is x W^T + b and nothing else: a router of experts may be more."""
    kind = type(module)
    plain = kind.forward is nn.Linear.forward or kind.__name__ in ALIKE
    return isinstance(module, nn.Linear) and plain


@lru_cache(maxsize=8)
def _shapes_of(folder: str, _changed: int) -> tuple[tuple[str, tuple[int, int]], ...]:
    with torch.device("meta"):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        check_causal(folder, config)
        model = model_class(config).from_config(config, trust_remote_code=False)
    take_apart(model)
    found, prefix = [], text_prefix(model)
    for path, module in model.named_modules():
        if not IN_BLOCK.search(path) or not path.startswith(prefix):
            continue
        if isinstance(module, Conv1D):
            i, o = module.weight.shape
            found.append((path, (i, o)))
        elif is_linear(module):
            found.append((path, (module.in_features, module.out_features)))
    return tuple(found)
