"""Models of nothing but their sizes, and tokens with keys and values made up, to test pages."""

from functools import cache

import numpy as np
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from ramole_core.engine.flat_cache import FlatCache, Span
from ramole_core.engine.kv import KvCache, KvSequence


@cache
def model_of(heads: int, d: int, dtype: torch.dtype) -> PreTrainedModel:
    """A model of one layer, without numbers."""
    config = LlamaConfig(
        vocab_size=3,
        hidden_size=heads,
        intermediate_size=2,
        num_hidden_layers=1,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        head_dim=d,
    )
    with torch.device("meta"):
        return LlamaForCausalLM(config).to(dtype)


def page_cache(*, heads: int, d: int, dtype: torch.dtype, pages: int) -> KvCache:
    """A cache of so many pages."""
    model = model_of(heads, d, dtype)
    return KvCache(model, limit=pages * KvCache(model, limit=0).page_bytes)


class Tokens:
    """One request's queries, keys and values, [1, h, n, d] each, in every layer the same."""

    def __init__(self, n: int, *, shared: int, heads: int, d: int, dv: int, dtype, seed: int = 0):
        pick = torch.Generator().manual_seed(seed)

        def made(h: int, size: int, scale: float) -> Tensor:
            numbers = torch.randn(1, n, h, size, generator=pick) * scale
            return numbers.to(dtype).transpose(1, 2)  # as a model's projections lie

        self.n = n
        self.q, self.k, self.v = made(heads * shared, d, 2), made(heads, d, 1), made(heads, dv, 1)
        self.content = np.full((n, 3), seed, np.int64)

    def naive(
        self,
        *,
        scale: float | None = None,
        window: int | None = None,
        cap: float | None = None,
        sinks: Tensor | None = None,
    ) -> Tensor:
        """[1, n, hq, dv] in float64."""
        shared = self.q.shape[1] // self.k.shape[1]
        q = self.q.double()
        k, v = (t.double().repeat_interleave(shared, 1) for t in (self.k, self.v))
        scores = q @ k.transpose(-1, -2) * (q.shape[-1] ** -0.5 if scale is None else scale)
        if cap is not None:
            scores = cap * torch.tanh(scores / cap)
        at = torch.arange(self.n)
        seen = at <= at[:, None]
        if window is not None:
            seen &= at > at[:, None] - window
        scores = scores.masked_fill(~seen, -torch.inf)
        if sinks is not None:
            beside = sinks.double()[None, :, None, None].expand(1, -1, self.n, 1)
            scores, v = torch.cat([scores, beside], -1), torch.nn.functional.pad(v, (0, 0, 0, 1))
        return (scores.softmax(-1) @ v).transpose(1, 2)


@torch.inference_mode()
def forward(
    kv: KvCache,
    parts: list[tuple[Tokens, KvSequence, int]],
    *,
    commit: bool = True,
    **options,
) -> list[Tensor]:
    """Feed the next tokens of several requests side by side; what each part attended to,
    [count, hq, dv]."""
    spans = [Span(sequence, sequence.length, count) for _, sequence, count in parts]
    flat = FlatCache(kv, spans)
    options = {"scale": None, "window": None} | options

    def side_by_side(name: str) -> Tensor:
        pieces = [
            getattr(tokens, name)[:, :, span.start : span.start + span.count].transpose(1, 2)
            for (tokens, *_), span in zip(parts, spans, strict=True)
        ]
        return torch.cat(pieces, 1).transpose(1, 2)

    flat.update(side_by_side("k"), side_by_side("v"), 0)
    found = flat.attend(side_by_side("q"), 0, **options)
    if commit:
        for (tokens, sequence, _), span in zip(parts, spans, strict=True):
            kv.commit(sequence, tokens.content[span.start : span.start + span.count])
    return list(found[0].split([span.count for span in spans]))


def soil(kv: KvCache, tokens: Tokens) -> None:
    """Leave in free pages what is no number."""
    dirty = Tokens(tokens.n, shared=1, heads=1, d=1, dv=1, dtype=tokens.k.dtype)
    dirty.q, dirty.k, dirty.v = (
        torch.full_like(t, torch.nan) for t in (tokens.q, tokens.k, tokens.v)
    )
    sequence = kv.open(dirty.content, kv.max_tokens)
    assert sequence is not None
    forward(kv, [(dirty, sequence, dirty.n)], commit=False)
    kv.close(sequence)
