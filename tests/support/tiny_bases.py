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


BOTH_KINDS = ("sliding_attention", "full_attention")
KINDS: Mapping[str, Mapping[str, object]] = {
    "flint": {"mlp_only_layers": [0]},
    "beam": {"mlp_layer_types": ["dense", "sparse"]},
    "cohere2_moe": {"mlp_layer_types": ["dense", "sparse"]},
    "mellum": {"mlp_layer_types": ["dense", "sparse"]},
    "qwen2_moe": {"mlp_only_layers": [0]},
    "smollm3": {"no_rope_layers": [1, 0]},
}
"""A layer of each kind, where the usual first two are of one."""


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
        windows = hasattr(usual, "sliding_window") and not hasattr(usual, "use_sliding_window")
        if windows and set(usual.layer_types) <= set(BOTH_KINDS):
            found["layer_types"] = list(BOTH_KINDS)
    if kind.model_type in KINDS:
        found |= KINDS[kind.model_type]
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


HALF_FACTORS = {"short_factor": [1.0] * 3, "long_factor": [4.0, 6.0, 9.0]}
WINDOWED = {"use_sliding_window": True, "max_window_layers": 2}
EXACT = """
    apertus apertus1p5_text arcee biogpt bitnet codegen cohere cohere2 ctrl cwm ernie4_5 exaone
    exaone4 gemma gemma2 gemma3_text glm glm4 gpt2 gpt_bigcode gpt_neox gptj granite granite_swa
    helium hunyuan_v1_dense hyperclovax internlm3 iquestcoder jais2 llama ministral ministral3
    mistral modernbert-decoder nanochat nemotron olmo olmo2 olmo3 opt persimmon phi phi3 qwen2
    qwen3 seed_oss smollm3 starcoder2 vaultgemma
""".split()
ROUNDED = """
    afmoe aria_text beam cohere2_moe dots1 ernie4_5_moe exaone_moe flint flex_olmo glm4_moe gpt_oss
    granitemoe granitemoe_swa granitemoeshared hunyuan_v1_moe hy_v3 kolibri1 laguna mellum
    minimax_m2 mixtral olmoe phimoe qwen3_moe sarvam_moe solar_open
""".split()
OWN_CODE, ENCODER = "attend by code of their own", "is an encoder"
CODE_FAILS = "its code fails here"
NO_LENGTH = "does not say how many tokens"
RECURRENT = {"hidden_size": 48, "num_hidden_layers": 2, "vocab_size": 258}
HYBRID = RECURRENT | {
    **{"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 80},
    **{"max_position_embeddings": 512, "pad_token_id": 257, "eos_token_id": 257},
}
BAMBA = {"mamba_n_heads": 4, "mamba_d_head": 24, "mamba_d_state": 8, "mamba_n_groups": 1}
ZAMBA = {"mamba_d_state": 8, "attention_hidden_size": 96, "attention_head_dim": 24}
HYBRIDS: Mapping[str, Mapping[str, object]] = {
    "bamba": BAMBA | {"attn_layer_indices": [1]},
    "falcon_h1": BAMBA | {"mamba_d_ssm": 48, "mamba_d_head": 12},
    "granitemoehybrid": BAMBA
    | {"layer_types": ["mamba", "attention"], "shared_intermediate_size": 32}
    | {"num_local_experts": 4, "num_experts_per_tok": 2},
    "jamba": {"num_experts": 2, "attn_layer_period": 2, "attn_layer_offset": 1, "mamba_d_state": 4},
    "nemotron_h": {
        **{"layers_block_type": ["mamba", "attention"], "mamba_num_heads": 4},
        **{"mamba_head_dim": 24, "ssm_state_size": 8, "n_groups": 1},
    },
    "olmo_hybrid": {
        **{"layer_types": ["linear_attention", "full_attention"]},
        **{"linear_num_key_heads": 2, "linear_num_value_heads": 2},
        **{"linear_key_head_dim": 8, "linear_value_head_dim": 8},
    },
    "zamba": ZAMBA
    | {"n_mamba_heads": 2, "layers_block_type": ["mamba", "hybrid"] * 2, "num_hidden_layers": 4},
    "zamba2": ZAMBA
    | {"n_mamba_heads": 4, "mamba_headdim": 24, "mamba_ngroups": 1, "num_mem_blocks": 1}
    | {"hybrid_layer_ids": [1], "layers_block_type": ["mamba", "hybrid"]},
    "zaya": {
        **{"num_experts": 4, "num_experts_per_tok": 1, "moe_intermediate_size": 32},
        "head_dim": 12,
    },
}
INDEXED = LATENT | {"index_n_heads": 2, "index_head_dim": 8}
PER_LAYER = HYBRID | {
    **{"head_dim": 12, "sliding_window": 40, "laurel_rank": 4, "num_kv_shared_layers": 0},
    **{"hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 258},
    **{"layer_types": list(BOTH_KINDS), "activation_sparsity_pattern": [0.5, 0.0]},
}
"""Gemma3n."""
SHARED = PER_LAYER | {
    **{"num_hidden_layers": 4, "num_kv_shared_layers": 2, "layer_types": list(BOTH_KINDS) * 2},
    **{"activation_sparsity_pattern": [0.5, 0.0, 0.0, 0.0], "intermediate_size": [80] * 4},
}
LAYERS, LATENTS = "has layers of type", "changes keys or values after they were written"
REFUSED: Mapping[str, str] = {
    OWN_CODE: "gpt_neox_japanese mpt xglm",
    ENCODER: """
        bert bert-generation camembert data2vec-text electra ernie megatron-bert rembert roberta
        roc_bert roformer xlm-roberta big_bird roberta-prelayernorm xlm xlm-roberta-xl xmod
    """,
    LAYERS: "deepseek_v4 hy_v4 inkling_text lara_mini llama4_text minimax",
    CODE_FAILS: "bart mbart openai-gpt pegasus rwkv",
    NO_LENGTH: "bloom whisper xlstm",
    LATENTS: "diffllama jetmoe",
    "attends by a mask of its own": "doge",
    "without having written": "hrm_text",
    "their spread": "dory",
    "bytes a page": "mimo_v2_flash",
    "LinearAttention": "bailing_hybrid kimi_linear lfm3 qwen3_next qwen3_5_text",
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
ROPES: tuple[Mapping[str, object], ...] = (
    {"rope_type": "linear", "factor": 3.0},
    {"rope_type": "dynamic", "factor": 3.0},
    {"rope_type": "yarn", "factor": 3.0, "original_max_position_embeddings": 70},
    {
        **{"rope_type": "llama3", "factor": 3.0, "original_max_position_embeddings": 70},
        **{"low_freq_factor": 1.0, "high_freq_factor": 4.0},
    },
)


def rope(model_type: str, **said: object) -> TinyBase:
    """A scaled rope, past its first length, and a context that is no multiple of 64."""
    told = {"rope_parameters": {"rope_theta": 1e4, **said}, "max_position_embeddings": 210}
    if "original_max_position_embeddings" in said:
        told["original_max_position_embeddings"] = said["original_max_position_embeddings"]
    return TinyBase("exact", model_type, told)


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
        for one in names.split()
    },
    **{
        one: TinyBase("refused", one, LATENT, reason=LATENTS)
        for one in ("deepseek_v3", "longcat_flash", "minicpm3", "youtu", "glm4_moe_lite")
        + ("axk1", "sarvam_mla")
    },
    **{
        one: TinyBase("refused", one, INDEXED, reason=LAYERS)
        for one in ("deepseek_v32", "glm_moe_dsa")
    },
    "minimax_m3_vl_text": TinyBase(
        "refused",
        "minimax_m3_vl_text",
        {"layer_types": ["minimax_m3_sparse", "full_attention"]}
        | {"index_n_heads": 2, "index_head_dim": 8, "index_block_size": 8, "index_topk_blocks": 2},
        reason=LAYERS,
    ),
    "gemma3n_text": TinyBase(
        "refused", "gemma3n_text", SHARED, True, reason="without having written"
    ),
    "gemma3n_text without shared keys": TinyBase("exact", "gemma3n_text", PER_LAYER, True),
    **{
        one: TinyBase("refused", one, HYBRID | said, True, reason=LAYERS)
        for one, said in HYBRIDS.items()
    },
    "mamba2": TinyBase(
        "refused",
        "mamba2",
        RECURRENT | {"num_heads": 4, "head_dim": 24, "state_size": 8, "n_groups": 1},
        True,
        reason=NO_LENGTH,
    ),
    "lfm2_moe": TinyBase("refused", "lfm2_moe", CONVOLUTIONS, reason=LAYERS),
    "qwen3_5_moe_text": TinyBase(
        "refused",
        "qwen3_5_moe_text",
        {"layer_types": ["linear_attention", "full_attention"]},
        reason=LAYERS,
    ),
    "deepseek_v2": TinyBase("refused", "deepseek_v2", LATENT, reason="no cosines and sines"),
    "lfm2": TinyBase("refused", "lfm2", CONVOLUTIONS, reason=LAYERS),
    "stablelm": TinyBase("exact", "stablelm", {"rope_parameters": PARTIAL}),
    "qwen2_moe": TinyBase("rounded", "qwen2_moe"),
    "qwen2_moe with a window": TinyBase("rounded", "qwen2_moe", WINDOWED),
    "qwen3_moe with a window": TinyBase("rounded", "qwen3_moe", WINDOWED),
    "qwen2 with a window": TinyBase("exact", "qwen2", WINDOWED | {"max_window_layers": 1}),
    "qwen3 with a window": TinyBase("exact", "qwen3", WINDOWED | {"max_window_layers": 1}),
    "smollm3 with a window": TinyBase("exact", "smollm3", WINDOWED),
    **{f"llama with a {one['rope_type']} rope": rope("llama", **one) for one in ROPES},
    "phi3 with half a longrope": rope(
        "phi3", **LONGROPE | {"partial_rotary_factor": 0.5, **HALF_FACTORS}
    ),
    "phi3 with longrope": TinyBase(
        "exact", "phi3", {"rope_parameters": LONGROPE, "original_max_position_embeddings": 100}
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
_SKIPPED = {
    "another name of GPT-2": "gpt-sw3",
    "attention over compressed or indexed keys": """
        axk2 inkling2_loop_text inkling2_text qwen4_exp qwen4_exp_text dots3_note dots3_note_text
    """,
    "recurrent layers": "qwen3_5 qwen3_5_moe",
    "encoders, and decoders of a pair": """
        bigbird_pegasus blenderbot blenderbot-small marian mvp plbart prophetnet trocr xlnet
        reformer
    """,
    "images and sound, large by their defaults": """
        blt cpmant emu3 fuyu gemma3n gemma4 gemma4_assistant gemma4_unified
        gemma4_unified_assistant gemma4_unified_text git got_ocr2 llama4 mllama moshi
        moss_transcribe_diarize musicgen musicgen_melody phi4_multimodal cohere_compass_text
    """,
    "blocks with experts in classes of their own": "dbrx",
    "vision-language models, of which the text half would be served": """
        apertus1p5 aria aya_vision blip blip-2 chameleon cohere2_vision cohere_compass cosmos3_edge
        cosmos3_omni deepseek_ocr2 deepseek_vl deepseek_vl_hybrid diffusion_gemma ernie4_5_vl_moe
        evolla exaone4_5 fast_vlm florence2 glm46v glm4v glm4v_moe glm5_next glm_ocr glmga
        granite4_vision granite_docling hunyuan_vl hy_v4_vl hyperclovax_vision_v2 idefics idefics2
        idefics3 inkling2 inkling2_loop inkling_mm_model instructblip instructblipvideo internvl
        janus kimi_k25 kosmos-2 kosmos-2.5 lfm2_vl lfm3_vl lighton_ocr llava llava_next
        llava_next_video llava_onevision minicpm_ocr minicpmv4_6 minicpmv4_7 minimax_m3_vl mistral4
        mistral_large4 molmo2 muse_glimmer muse_spark nemotron_h_omni ovis2 paddleocr_vl paligemma
        perception_lm pi0 pix2struct pp_chart2table pp_formulanet qianfan_ocr qwen2_5_omni_thinker
        qwen2_5_vl qwen3_omni_moe_thinker qwen3_vl qwen3_vl_moe shieldgemma2 smolvlm step3p7
        t5gemma2 udop unlimited_ocr video_llama_3 video_llava vipllava vision-encoder-decoder
    """,
}
SKIPPED = {what: names.split() for what, names in _SKIPPED.items()}
"""Families that are not made here, by what they are; the check at a load decides about them."""


def named_types() -> set[str]:
    """Every family that the table names."""
    skipped = {one for names in SKIPPED.values() for one in names}
    return {row.model_type for row in BASES.values()} | skipped
