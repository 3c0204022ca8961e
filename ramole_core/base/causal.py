"""Check that a config describes a causal model.

transformers gives encoders a head for writing too (`BertLMHeadModel`), and loads them with no more
than a warning, but their tokens look both ways unless the config says that it is a decoder's.
"""

from transformers import PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING

from ramole_core.errors import RamoleError

ENCODERS = ("bert-generation",)
"""Families of encoders that fill no blanks, so that transformers' list of those lacks them."""
BOTH_WAYS = {
    "is_causal": (False,),
    "use_bidirectional_attention": (True, "all"),
    "causal": (False,),  # XLM's
    "attn_type": ("bi",),  # XLNet's
}
"""Fields of a config, and what they say where tokens look both ways."""


def check_causal(source: str, config: PreTrainedConfig) -> None:
    """Raise RamoleError unless the model is causal."""
    text = config.get_text_config(decoder=True)
    if (said := _says_both_ways(text)) is not None:
        raise RamoleError(
            f"{source} is an encoder ({text.model_type}, {said}): its tokens see those behind "
            "them, so it fills blanks and cannot write; set RAMOLE_BASE_MODEL to a causal language "
            "model."
        )


def _says_both_ways(config: PreTrainedConfig) -> str | None:
    """The config field of bidirectional attention, or None."""
    for name, values in BOTH_WAYS.items():
        value = getattr(config, name, None)
        if any(value is one or (isinstance(one, str) and value == one) for one in values):
            return f"{name}={value}"
    # a decoder taken out of a pair, as BartForCausalLM is, makes itself one; GPT-NeoX has the field
    # and no use for it
    writes = getattr(config, "is_decoder", True) or getattr(config, "is_encoder_decoder", False)
    encoder = type(config) in MODEL_FOR_MASKED_LM_MAPPING or config.model_type in ENCODERS
    return "is_decoder=False" if encoder and not writes else None
