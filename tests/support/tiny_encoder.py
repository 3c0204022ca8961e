"""A 2-layer BERT with a tokenizer of whole words, as a sentence-transformers folder."""

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from ramole_core.retrieval import INSTRUCTION

COLOURS, SONGS = "red blue green pink".split(), "loud low high soft".split()
OTHERS = "please say sing now 0 1 2 3 4 5 6 7 8 9".split()
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *COLOURS, *SONGS, *OTHERS, *INSTRUCTION.split()]


def write_encoder(folder: Path) -> Path:
    """The encoder, random weights and all, in `folder`."""
    words = Tokenizer(models.WordLevel({w: n for n, w in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=64,
    )
    torch.manual_seed(3)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=24,
        intermediate_size=36,
        num_hidden_layers=2,
        num_attention_heads=3,
        max_position_embeddings=64,
        initializer_range=0.3,
    )
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    pooling = {"word_embedding_dimension": 24, "pooling_mode_mean_tokens": True}
    parts = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1", "type": "sentence_transformers.models.Pooling"},
    ]
    (folder / "1").mkdir()
    (folder / "1" / "config.json").write_text(json.dumps(pooling))
    (folder / "modules.json").write_text(json.dumps(parts))
    return folder
