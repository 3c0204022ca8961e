"""The sentence encoder with a trainable LoRA: texts to unit vectors.

It reads what the served encoder reads: the same window, the same instruction, the same mean over
the tokens. Attention is written out (`eager`), which is twice as fast backwards on a CPU.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from torch.nn.functional import normalize
from transformers import AutoModel, AutoTokenizer

from ramole_core.retrieval import INSTRUCTION
from ramole_core.retrieval.tuning import spans_of
from ramole_core.training.recipe import RetrieverRecipe

_ROWS = 32  # texts of about equal length in one forward


class TrainedEncoder:
    """A mean-pooling encoder whose LoRA is trained; dropout is off throughout."""

    def __init__(self, folder: Path, recipe: RetrieverRecipe):
        """`folder` holds the encoder; the LoRA starts at B = 0, A drawn from the seed."""
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._window = recipe.window
        self._ids: dict[str, list[int]] = {}
        torch.manual_seed(recipe.schedule.seed)
        config = LoraConfig(
            r=recipe.rank,
            lora_alpha=recipe.alpha,  # pyright: ignore[reportArgumentType]  (PEFT takes floats too)
            target_modules=list(recipe.modules),
            exclude_modules=["pooler.dense"],
        )
        encoder = AutoModel.from_pretrained(folder, attn_implementation="eager")
        adapted = get_peft_model(encoder, config)
        assert isinstance(adapted, PeftModel)
        self.model = adapted.eval()

    def __call__(self, texts: Sequence[str]) -> Float[Tensor, "n d"]:
        """Vectors of unit length, with their gradient."""
        rows = self._read(texts)
        order = sorted(range(len(rows)), key=lambda n: len(rows[n]))
        parts = [order[start : start + _ROWS] for start in range(0, len(order), _ROWS)]
        vectors = torch.cat([self._forward([rows[n] for n in part]) for part in parts])
        return vectors[torch.tensor(order).argsort()]

    def embed(self, texts: Sequence[str]) -> Float32[np.ndarray, "n d"]:
        """The same without a gradient."""
        with torch.no_grad():
            return self(texts).numpy()

    def _read(self, texts: Sequence[str]) -> list[list[int]]:
        new = [text for text in dict.fromkeys(texts) if text not in self._ids]
        if new:
            cut = self._window.cut(new, spans_of(self._tokenizer))
            ids = self._tokenizer([INSTRUCTION + text for text in cut], verbose=False)["input_ids"]
            self._ids.update(zip(new, ids, strict=True))
        return [self._ids[text] for text in texts]

    def _forward(self, rows: Sequence[Sequence[int]]) -> Float[Tensor, "n d"]:
        length = max(len(row) for row in rows)
        ids = torch.zeros(len(rows), length, dtype=torch.long)
        mask = torch.zeros(len(rows), length)
        for n, row in enumerate(rows):
            ids[n, : len(row)] = torch.tensor(row)
            mask[n, : len(row)] = 1
        # the cache would keep the first step's copies of the weights for the whole run
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
            hidden = self.model(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        mean = torch.einsum("nld,nl->nd", hidden.float(), mask) / mask.sum(1, keepdim=True)
        return normalize(mean, dim=-1)
