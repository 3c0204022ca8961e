"""The linear layers of a base model, from its config alone: no weight is read."""

import re
from functools import lru_cache
from pathlib import Path
from typing import TypeGuard

import torch
from torch import nn
from transformers import AutoConfig, PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING
from transformers.pytorch_utils import Conv1D

from ramole_core.base.architecture import model_class, text_prefix
from ramole_core.base.routers import take_apart
from ramole_core.errors import RamoleError, first_line

LINEAR_CLASSES = ("FalconLinear",)
"""Classes of transformers that are equivalent to a linear layer."""
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
        reason = first_line(error)
        raise RamoleError(
            f"{config} does not describe a causal language model that is known here "
            f"({reason.rstrip('.:')}); set RAMOLE_BASE_MODEL to another."
        ) from error


def is_linear(module: nn.Module) -> TypeGuard[nn.Linear]:
    """Whether a module is x W^T + b and nothing else: a router of experts may be more."""
    kind = type(module)
    plain = kind.forward is nn.Linear.forward or kind.__name__ in LINEAR_CLASSES
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


ENCODERS = ("bert-generation",)
"""Families of encoders that fill no blanks, so that transformers' list of those lacks them."""
BIDIRECTIONAL = {
    "is_causal": (False,),
    "use_bidirectional_attention": (True, "all"),
    "causal": (False,),  # XLM's
    "attn_type": ("bi",),  # XLNet's
}
"""Fields of a config, and their values for bidirectional attention."""


def check_causal(source: str, config: PreTrainedConfig) -> None:
    """Raise RamoleError unless the model is causal."""
    text = config.get_text_config(decoder=True)
    if (said := _bidirectional_field(text)) is not None:
        raise RamoleError(
            f"{source} is an encoder ({text.model_type}, {said}): its tokens see those behind "
            "them, so it fills blanks and cannot write; set RAMOLE_BASE_MODEL to a causal language "
            "model."
        )


def _bidirectional_field(config: PreTrainedConfig) -> str | None:
    """The config field of bidirectional attention, or None."""
    for name, values in BIDIRECTIONAL.items():
        value = getattr(config, name, None)
        if any(value is one or (isinstance(one, str) and value == one) for one in values):
            return f"{name}={value}"
    # a decoder taken out of a pair, as BartForCausalLM is, makes itself one; GPT-NeoX has the field
    # and no use for it
    writes = getattr(config, "is_decoder", True) or getattr(config, "is_encoder_decoder", False)
    encoder = type(config) in MODEL_FOR_MASKED_LM_MAPPING or config.model_type in ENCODERS
    return "is_decoder=False" if encoder and not writes else None
