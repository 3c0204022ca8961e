"""Encoders are told from models that write, against what tiny models of each family compute."""

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

from ramole_core import RamoleError
from ramole_core.base.shapes import check_causal

SIZES = {
    "vocab_size": 90,
    "hidden_size": 24,
    "embedding_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
    "type_vocab_size": 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
PAIR = {
    "d_model": 24,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 40,
    "decoder_ffn_dim": 40,
}
OWN = {
    "big_bird": {"attention_type": "original_full"},
    "xlm": {"emb_dim": 24, "n_layers": 2, "n_heads": 2, "n_words": 90, "use_lang_emb": False},
    "xlnet": {"d_model": 24, "n_layer": 2, "n_head": 2, "d_inner": 40, "vocab_size": 90},
    "xmod": {"languages": ["en_XX"], "default_language": "en_XX"},
    "gpt2": {"n_embd": 24, "n_layer": 2, "n_head": 2},
    "roc_bert": {"pronunciation_vocab_size": 90, "shape_vocab_size": 90, "enable_shape": False}
    | {"enable_pronunciation": False},
    "rembert": {"input_embedding_size": 24, "output_embedding_size": 24},
    "gemma": {"head_dim": 12, "num_key_value_heads": 2},
}
FILLS = sorted(
    (MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.keys() & MODEL_FOR_MASKED_LM_MAPPING_NAMES.keys())
    - {"reformer"}  # builds no encoder with this head
)
WRITES = ["bert-generation", "trocr", "gpt_neox", "llama", "gpt2", "gemma", "xlnet", "marian"]


def looks_ahead(config) -> bool:
    """Whether a later token changes what the model says after the first ones."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    ids = torch.arange(5, 37)[None]
    other = torch.cat([ids[:, :20], ids[:, 20:] + 9], dim=1)
    with torch.inference_mode():
        a, b = (model(input_ids=one, use_cache=False).logits[0] for one in (ids, other))
    assert not torch.equal(a[20:], b[20:])
    return not torch.allclose(a[:10], b[:10], atol=1e-6)


@pytest.mark.filterwarnings("ignore")  # what old families say of themselves
@pytest.mark.parametrize("family", [*FILLS, *WRITES])
@pytest.mark.parametrize("decoder", [False, True])
def test_whoever_looks_ahead_is_refused_and_nobody_else(family, decoder):
    kind = CONFIG_MAPPING[family]
    said = {"is_decoder": True} if decoder and hasattr(kind(), "is_decoder") else {}
    sizes = {} if family == "xlnet" else {**SIZES, **PAIR}
    config = kind(**{**sizes, **OWN.get(family, {}), **said})
    if not looks_ahead(config):
        check_causal("a/folder", config)
        return
    assert family in FILLS or family in ("bert-generation", "xlnet")
    with pytest.raises(RamoleError) as refused:
        check_causal("a/folder", config)
    assert f"a/folder is an encoder ({family}, " in str(refused.value)
    assert str(refused.value).endswith("set RAMOLE_BASE_MODEL to a causal language model.")


def test_a_decoder_made_to_look_both_ways_is_refused():
    sizes = {**SIZES, **OWN["gemma"]}
    for said in ({"is_causal": False}, {"use_bidirectional_attention": True}):
        config = CONFIG_MAPPING["gemma"](**sizes, **said)
        assert looks_ahead(config)
        with pytest.raises(RamoleError, match="gemma, "):
            check_causal("a/folder", config)
