"""Tiny random models of transformers' own classes, by family, and what is expected of each.

`exact`: served to the bit whoever else is there; `rounded`: served, but PyTorch computes something
of it for all tokens together (experts); `refused`: not served, with a sentence.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn
from transformers import CONFIG_MAPPING, PreTrainedConfig, PreTrainedModel

from ramole_core.base.architecture import model_class
from tests.conftest import save_tiny_tokenizer

SIZES: Mapping[str, object] = {
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "word_embed_proj_dim", "embed_dim"), 48),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "ffn_hidden_size", "n_inner", "d_ff"), 80),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers"), 2),
    **dict.fromkeys(("decoder_layers", "num_decoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), 4),
    "decoder_attention_heads": 4,
    "decoder_ffn_dim": 80,
    "num_key_value_heads": 2,
    "head_dim": 12,
    "rotary_dim": 8,
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_seq_len"), 512),
    "sliding_window": 40,
    "vocab_size": 258,
    "pad_token_id": 257,
    "bos_token_id": 256,
    "eos_token_id": 257,
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_topk"), 2),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 32),
    "expert_ffn_hidden_size": 32,
    "decoder_sparse_step": 1,
    **dict.fromkeys(("n_shared_experts", "n_group", "topk_group"), 1),
}
"""Fields of configurations, of which each takes those that it has."""
LATENT = {
    "kv_lora_rank": 16,
    "q_lora_rank": 24,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 8,
    "head_dim": 4,
    "num_key_value_heads": 4,
}
"""Multi-head latent attention."""
EYES = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 8,
    "patch_size": 4,
}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 1e4,
    "short_factor": [1.0] * 6,
    "long_factor": [4.0, 5.0, 6.0, 7.0, 8.0, 9.0],
    "original_max_position_embeddings": 100,
    "factor": 4.0,
}


@dataclass(frozen=True)
class TinyBase:
    """One row of the table."""

    verdict: str
    model_type: str
    said: Mapping[str, object] = field(default_factory=dict)
    """Fields beside those of SIZES."""
    alone: bool = False
    """These fields alone."""
    reason: str = ""
    """What the refusal says."""
    half: str = ""
    """The field that holds the text half's configuration."""

    def config(self) -> PreTrainedConfig:
        kind = CONFIG_MAPPING[self.model_type]
        if self.half:
            text = CONFIG_MAPPING[kind().get_text_config().model_type]
            return kind(**{self.half: fields_of(text) | dict(self.said)}, **BESIDE[self.model_type])
        return kind(**(dict(self.said) if self.alone else fields_of(kind) | dict(self.said)))


BESIDE: Mapping[str, Mapping[str, object]] = {
    "gemma3": {"vision_config": EYES, "mm_tokens_per_image": 4, "image_token_id": 250},
    "mistral3": {"vision_config": EYES | {"head_dim": 8}, "image_token_index": 250},
    "qwen2_vl": {
        "vision_config": {
            **{"depth": 1, "embed_dim": 16, "num_heads": 2, "hidden_size": 48},
            **{"mlp_ratio": 2, "patch_size": 4},
        },
        "image_token_id": 250,
        "video_token_id": 251,
    },
}
"""What else a vision-language configuration needs."""


def fields_of(kind: type[PreTrainedConfig]) -> dict[str, object]:
    """Those of SIZES that this configuration has."""
    usual = kind()
    found = {name: value for name, value in SIZES.items() if hasattr(usual, name)}
    if hasattr(usual, "layer_types"):
        found["layer_types"] = None  # the length of the usual ones is another
    return found


def save_tiny_base(row: TinyBase, folder: Path) -> Path:
    """The model in fp32 and the tokenizer of bytes; the same at every call."""
    save_tiny_tokenizer(folder)
    torch.manual_seed(0)
    config = row.config()
    model = model_class(config).from_config(config)
    enlarge(model)
    model.save_pretrained(folder)
    return folder


def enlarge(model: PreTrainedModel) -> None:
    """Weights so large that one token changed moves all logits."""
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim < 2:
                weight.add_(torch.randn_like(weight) * 0.1)
            else:
                scale = 1.0 if id(weight) in tables else 1.4 * weight.shape[-1] ** -0.5
                weight.normal_(0, scale)


EXACT = (
    *("apertus", "apertus1p5_text", "arcee", "biogpt", "bitnet", "codegen", "cohere", "cohere2"),
    *("ctrl", "cwm", "ernie4_5", "exaone4", "flint", "gemma", "gemma2", "gemma3_text"),
    *("glm", "glm4", "gpt2", "gpt_bigcode", "gpt_neox", "gptj", "granite"),
    *("granite_swa", "helium", "hunyuan_v1_dense", "hyperclovax"),
    *("jais2", "llama", "ministral", "ministral3", "mistral", "modernbert-decoder", "nanochat"),
    *("nemotron", "olmo", "olmo2", "olmo3", "opt", "persimmon", "phi", "phi3", "qwen2", "qwen3"),
    *("seed_oss", "smollm3", "starcoder2", "vaultgemma"),
)
ROUNDED = (
    *("afmoe", "aria_text", "beam", "cohere2_moe", "dots1", "ernie4_5_moe", "exaone_moe"),
    *("flex_olmo", "glm4_moe", "gpt_oss", "granitemoe", "granitemoe_swa", "granitemoeshared"),
    *("hunyuan_v1_moe", "hy_v3", "kolibri1", "laguna", "mellum", "minimax_m2", "mixtral", "olmoe"),
    *("phimoe", "qwen3_moe", "sarvam_moe", "solar_open"),
)
OWN_CODE, ENCODER = "attend by code of their own", "is an encoder"
CODE_FAILS = "its code fails here"
NO_LENGTH = "does not say how many tokens"
RECURRENT = {"hidden_size": 48, "num_hidden_layers": 2, "vocab_size": 258}
LAYERS, LATENTS = "has layers of type", "changes keys or values after they were written"
REFUSED: Mapping[str, tuple[str, ...]] = {
    OWN_CODE: ("gpt_neox_japanese", "mpt", "xglm"),
    ENCODER: (
        *("bert", "bert-generation", "camembert", "data2vec-text", "electra", "ernie"),
        *("megatron-bert", "rembert", "roberta", "roc_bert", "roformer", "xlm-roberta"),
    ),
    LAYERS: ("deepseek_v4", "hy_v4", "inkling_text", "lara_mini", "llama4_text", "minimax"),
    CODE_FAILS: ("bart", "mbart", "openai-gpt", "pegasus", "rwkv"),
    NO_LENGTH: ("bloom", "whisper", "xlstm"),
    LATENTS: ("diffllama", "jetmoe"),
    "attends by a mask of its own": ("doge",),
    "without having written": ("hrm_text",),
    "their spread": ("dory",),
    "bytes a page": ("mimo_v2_flash",),
    "LinearAttention": ("kimi_linear", "qwen3_next", "qwen3_5_text"),
}
REASONS: Mapping[str, str] = {
    OWN_CODE: "attention of their own, which does not call the attention function",
    ENCODER: "encoders, whose tokens see those behind them",
    LAYERS: "layers that are not attention over all keys or a window",
    LATENTS: "keys or values change after they were written (latent attention)",
    NO_LENGTH: "recurrent, or without a length in the configuration",
    CODE_FAILS: "their code fails in a forward of several requests",
    "attends by a mask of its own": "masks of their own",
    "without having written": "layers attend over keys of others",
    "their spread": "served and own logits differ",
    "bytes a page": "sizes of keys that differ by layer",
    "LinearAttention": "recurrent layers",
    "no cosines and sines": "rotary embeddings in complex numbers (latent attention)",
    "alibi": "a bias of the scores by distance (alibi)",
}
"""What the table in docs/hosting.md says of each reason."""
FALCON = {
    **{"hidden_size": 48, "num_attention_heads": 4, "num_hidden_layers": 2, "vocab_size": 258},
    **{"ffn_hidden_size": 80, "max_position_embeddings": 512, "alibi": False},
    **{"bos_token_id": 256, "eos_token_id": 257, "pad_token_id": 257},
}
PARTIAL = {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}
SECTIONS = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 2, 2]}
CONVOLUTIONS = {"layer_types": ["conv", "full_attention"]}
BASES: Mapping[str, TinyBase] = {
    **{one: TinyBase("exact", one) for one in EXACT},
    **{one: TinyBase("rounded", one) for one in ROUNDED},
    **{
        one: TinyBase("refused", one, reason=reason)
        for reason, names in REFUSED.items()
        for one in names
    },
    **{
        one: TinyBase("refused", one, LATENT, reason=LATENTS)
        for one in ("deepseek_v3", "longcat_flash", "minicpm3", "youtu", "glm4_moe_lite")
    },
    "deepseek_v2": TinyBase("refused", "deepseek_v2", LATENT, reason="no cosines and sines"),
    "lfm2": TinyBase("refused", "lfm2", CONVOLUTIONS, reason=LAYERS),
    "stablelm": TinyBase("exact", "stablelm", {"rope_parameters": PARTIAL}),
    "qwen2_moe": TinyBase("rounded", "qwen2_moe"),
    "qwen2_moe with a window": TinyBase(
        "rounded", "qwen2_moe", {"use_sliding_window": True, "max_window_layers": 0}
    ),
    "qwen2 with a window": TinyBase(
        "exact", "qwen2", {"use_sliding_window": True, "max_window_layers": 1}
    ),
    "phi3 with longrope": TinyBase(
        "exact",
        "phi3",
        {"rope_parameters": LONGROPE, "original_max_position_embeddings": 100},
    ),
    "falcon": TinyBase(
        "exact", "falcon", FALCON | {"new_decoder_architecture": True, "num_kv_heads": 2}, True
    ),
    "falcon with one key head": TinyBase("exact", "falcon", FALCON | {"multi_query": True}, True),
    "falcon with all key heads": TinyBase("exact", "falcon", FALCON | {"multi_query": False}, True),
    "falcon with alibi": TinyBase(
        "refused", "falcon", FALCON | {"alibi": True}, True, reason="alibi"
    ),
    "gpt_neo": TinyBase(
        "refused",
        "gpt_neo",
        {
            **{"hidden_size": 48, "num_layers": 2, "num_heads": 4, "vocab_size": 258},
            **{"attention_types": [[["global", "local"], 1]], "max_position_embeddings": 512},
        },
        True,
        reason=OWN_CODE,
    ),
    **{
        one: TinyBase("refused", one, RECURRENT | {"state_size": 8}, True, reason=NO_LENGTH)
        for one in ("mamba", "falcon_mamba")
    },
    "recurrent_gemma": TinyBase(
        "refused",
        "recurrent_gemma",
        RECURRENT | {"num_attention_heads": 4, "lru_width": 48, "head_dim": 12},
        True,
        reason=NO_LENGTH,
    ),
    "jamba": TinyBase(
        "refused",
        "jamba",
        RECURRENT
        | {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 80}
        | {"num_experts": 2, "attn_layer_period": 2, "attn_layer_offset": 1, "mamba_d_state": 4},
        True,
        reason=LAYERS,
    ),
    "gemma4_text": TinyBase(
        "refused",
        "gemma4_text",
        RECURRENT
        | {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 80}
        | {"hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 258}
        | {"layer_types": ["sliding_attention", "full_attention"]},
        True,
        reason=CODE_FAILS,
    ),
    "gemma3": TinyBase("exact", "gemma3", half="text_config"),
    "mistral3": TinyBase("exact", "mistral3", half="text_config"),
    "qwen2_vl": TinyBase("exact", "qwen2_vl", {"rope_parameters": SECTIONS}, half="text_config"),
}
SKIPPED: Mapping[str, tuple[str, ...]] = {
    "other names of Llama and GPT-2": ("exaone", "gpt-sw3", "internlm3", "iquestcoder"),
    "attention over compressed or indexed keys": (
        *("axk1", "axk2", "deepseek_v32", "glm_moe_dsa", "inkling2_loop_text", "inkling2_text"),
        *("minimax_m3_vl_text", "qwen4_exp", "qwen4_exp_text", "sarvam_mla", "dots3_note"),
        "dots3_note_text",
    ),
    "recurrent layers": (
        *("bailing_hybrid", "bamba", "falcon_h1", "granitemoehybrid", "lfm2_moe", "lfm3"),
        *(
            "mamba2",
            "nemotron_h",
            "olmo_hybrid",
            "qwen3_5",
            "qwen3_5_moe",
            "qwen3_5_moe_text",
            "zamba",
        ),
        *("zamba2", "zaya"),
    ),
    "encoders, and decoders of a pair": (
        *("big_bird", "bigbird_pegasus", "blenderbot", "blenderbot-small", "marian", "mvp"),
        *("plbart", "prophetnet", "roberta-prelayernorm", "trocr", "xlm", "xlm-roberta-xl"),
        *("xlnet", "xmod", "reformer"),
    ),
    "images and sound, large by their defaults": (
        *("blt", "cpmant", "emu3", "fuyu", "gemma3n", "gemma3n_text", "gemma4", "gemma4_assistant"),
        *("gemma4_unified", "gemma4_unified_assistant", "gemma4_unified_text", "git", "got_ocr2"),
        *("llama4", "mllama", "moshi", "moss_transcribe_diarize", "musicgen", "musicgen_melody"),
        *("phi4_multimodal", "cohere_compass_text"),
    ),
    "blocks with experts in classes of their own": ("dbrx",),
}
"""Families that are not made here, by what they are; the check at a load decides about them."""


def named_types() -> set[str]:
    """Every family that the table names."""
    skipped = {one for names in SKIPPED.values() for one in names}
    return {row.model_type for row in BASES.values()} | skipped
