"""Run several texts through a BERT encoder in one forward, each with the bits that it has alone.

Their tokens lie one after the other in one row. Products are our kernels', of which no row hangs on
another; sums, norms and GELU know their own numbers alone; attention is called for each text by
itself. So the weights are gone through once, and the kernels called once, for all of them.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn
from transformers import BertModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.models.bert.modeling_bert import BertSelfAttention

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

MAX_TOKENS = 512
"""In one forward, unless one text has more."""
WHOLE = 64
"""PyTorch computes so many numbers of a row alike; what is left over it computes in another way."""


class OneForward:
    """An encoder that reads several texts in one forward."""

    def __init__(self, model: "SentenceTransformer"):
        """Of a model that `can_read`; its attention is changed, and answers as before to whoever
        calls the model."""
        bert = model.transformers_model
        assert isinstance(bert, BertModel)
        self._model, self._bert, self._parts = model, bert, _Parts()
        for path, layer in [*bert.named_modules()]:
            if type(layer) is BertSelfAttention:
                bert.set_submodule(path, _Apart(layer, self._parts))

    def read(self, texts: Sequence[str], *, prompt: str | None) -> list[Float32[np.ndarray, "d"]]:
        """The vector of each, not yet of unit length; `prompt` is the encoder's own, which comes
        before each text."""
        rows, part, tokens = [], [], 0
        for one in [self._model.preprocess([text], prompt=prompt) for text in texts]:
            if part and tokens + _length(one) > MAX_TOKENS:
                rows += self._forward(part)
                part, tokens = [], 0
            part.append(one)
            tokens += _length(one)
        return rows + self._forward(part)

    def _forward(self, given: Sequence[Mapping]) -> list[Float32[np.ndarray, "d"]]:
        lengths = [_length(one) for one in given]
        cuts = self._parts.cuts = [*pairwise(accumulate(lengths, initial=0))]
        try:
            states = self._bert(
                input_ids=torch.cat([one["input_ids"] for one in given], 1),
                token_type_ids=torch.cat([one["token_type_ids"] for one in given], 1),
                position_ids=torch.cat([torch.arange(length) for length in lengths])[None],
            ).last_hidden_state
        finally:
            self._parts.cuts = []
        return [
            self._pooled({**one, "token_embeddings": states[:, start:end]})
            for one, (start, end) in zip(given, cuts, strict=True)
        ]

    def _pooled(self, features: dict) -> Float32[np.ndarray, "d"]:
        """Apply what follows the transformer: means, and in some encoders more layers."""
        for module in [*self._model][1:]:
            features = module(features)
        return features["sentence_embedding"][0].float().numpy()


def can_read(model: "SentenceTransformer") -> bool:
    """Whether texts may go together through an encoder whose products are kernels': a BERT, with
    sizes at which no text's place in the row shows in its bits."""
    bert = model.transformers_model
    if type(bert) is not BertModel or bert.config.is_decoder:
        return False
    c = bert.config
    whole = not c.hidden_size % WHOLE and not c.intermediate_size % WHOLE
    return whole and c._attn_implementation == "sdpa"


class _Parts:
    """The bounds of each text in the running forward."""

    def __init__(self):
        self.cuts: list[tuple[int, int]] = []


class _Apart(nn.Module):
    """Attention of each text to itself."""

    def __init__(self, inner: BertSelfAttention, parts: _Parts):
        super().__init__()
        self.inner, self._parts = inner, parts

    def forward(
        self, hidden_states: Float[Tensor, "b l d"], *args: object, **more: object
    ) -> tuple[Tensor, Tensor | None]:
        if not self._parts.cuts:
            return self.inner(hidden_states, *args, **more)
        inner = self.inner
        heads = 1, hidden_states.shape[1], -1, inner.attention_head_size
        q, k, v = (
            layer(hidden_states).view(heads).transpose(1, 2)
            for layer in (inner.query, inner.key, inner.value)
        )
        found = []
        for start, end in self._parts.cuts:
            own = slice(None), slice(None), slice(start, end)
            part = sdpa_attention_forward(
                inner, q[own], k[own], v[own], None, scaling=inner.scaling
            )
            found.append(part[0])
        return torch.cat(found, 1).flatten(2), None


def _length(given: Mapping) -> int:
    return given["input_ids"].shape[1]
