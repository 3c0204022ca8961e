"""A base model's transformers class, and its text part.

A vision-language model is served by its text half: the class is the whole one, so that module paths
are those that PEFT writes, and what reads images is dropped once it is loaded.
"""

from typing import Any

from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
)

KEPT_PARTS = ("lm_head",)


def model_class(config: PreTrainedConfig) -> Any:
    """The auto class that loads a model of this configuration."""
    kind = type(config)
    seen = kind not in MODEL_FOR_CAUSAL_LM_MAPPING and kind in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
    return AutoModelForImageTextToText if seen else AutoModelForCausalLM


def text_prefix(model: PreTrainedModel) -> str:
    """The path prefix of the text part's modules; empty for a text-only model."""
    if model.config.get_text_config(decoder=True) is model.config:
        return ""
    decoder = model.get_decoder()
    path = next((path for path, one in model.named_modules() if one is decoder), "")
    return f"{path}." if path else ""


def drop_other_parts(model: PreTrainedModel) -> None:
    """Remove encoders of images or sound from the model."""
    path = text_prefix(model).rstrip(".")
    while path:
        parent_path, _, name = path.rpartition(".")
        parent: nn.Module = model.get_submodule(parent_path)
        for other, child in list(parent.named_children()):
            if other != name and other not in KEPT_PARTS and any(True for _ in child.parameters()):
                setattr(parent, other, None)
        path = parent_path
