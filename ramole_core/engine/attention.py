"""The attention of a flat forward: every token over its own request's pages, up to itself.

The model runs with its own code; a cache that writes into the pages and an attention function that
reads them take the places of its own while a step runs.
"""

import math
from collections.abc import Sequence as Many
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, Cache, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from ramole_core.engine.compiled_attention import CompiledAttention
from ramole_core.engine.gathered_attention import GatheredAttention
from ramole_core.engine.kv import KvCache, Sequence
from ramole_core.errors import RamoleError
from ramole_core.kernels.program import Program


@dataclass(frozen=True)
class Span:
    """Tokens of one request that stand together in a flat forward."""

    sequence: Sequence
    start: int
    """Tokens that are before them."""
    count: int


class FlatCache(Cache):
    """The cache that a model sees while it runs the tokens of many requests, side by side.

    `update` writes their keys and values into the pages of their sequences, and `attend` reads them
    there.
    """

    def __init__(self, kv: KvCache, spans: Many[Span], *, device: torch.device | str = "cpu"):
        super().__init__(layers=[])
        self._memory = kv.memory
        for span in spans:
            assert span.start >= span.sequence.length, "these tokens are in the cache already"
            kv.reach(span.sequence, span.start + span.count)
        self._counts = np.array([span.count for span in spans], np.int64)
        self._starts = np.array([span.start for span in spans], np.int64)
        self._tables = [span.sequence.table for span in spans]
        self._most = max((span.sequence.most for span in spans), default=0)
        n = int(self._counts.sum())
        firsts = np.cumsum(self._counts) - self._counts
        places = np.arange(n) + np.repeat(self._starts - firsts, self._counts)
        self.positions = torch.from_numpy(places)[None].to(device)
        """[1, N] the place of each token in its sequence."""
        self._way: CompiledAttention | GatheredAttention | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args, **kwargs
    ) -> tuple[Tensor, Tensor]:
        keys, values = self._memory.layer(layer_idx, key_states, value_states)
        if self._way is None:
            way = CompiledAttention if CompiledAttention.knows(keys) else GatheredAttention
            self._way = way(self._starts, self._counts, self._tables, like=keys)
        self._way.write(keys, values, key_states, value_states)
        return key_states, value_states

    @property
    def like(self) -> Tensor:
        """Some layer's keys, as they lie in the pages."""
        return next(iter(self._memory.keys.values()))

    def take_over(self, program: Program) -> None:
        """A program that was made of a step of other tokens runs with these from now on."""
        way = CompiledAttention(self._starts, self._counts, self._tables, like=self.like)
        way.take_over(program)
        self._way = way

    def make_room(self) -> GatheredAttention:
        """Attend in tensors as large as these requests may become; keys and values of an earlier
        step are there."""
        tables, like = self._tables, self.like
        self._way = GatheredAttention(
            self._starts, self._counts, tables, like=like, room=self._most
        )
        return self._way

    def refill(self, way: GatheredAttention) -> None:
        """Tensors that were made for the step of other tokens hold these from now on."""
        way.fill(self._starts, self._tables)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return int((self._starts + self._counts).max()) - 1

    def attend(
        self, query: Tensor, layer: int, *, scale: float | None, window: int | None
    ) -> Tensor:
        """softmax(scale q K^T) V of each token over its own request's tokens, those behind it and
        those further back than `window` left out: [1, hq, N, d] -> [1, N, hq, dv]."""
        keys, values = self._memory.keys[layer], self._memory.values[layer]
        if scale is None:
            scale = 1 / math.sqrt(query.shape[-1])
        assert self._way is not None, "keys and values come first"
        return self._way.attend(query, keys, values, scale=scale, window=window)


class ServedAttention:
    """The model's attention while it is served: ours in a step, its own elsewhere."""

    def __init__(self, model: PreTrainedModel):
        """Raises RamoleError for a model whose attention cannot be replaced."""
        self._model = model
        before = model.config._attn_implementation
        if before != "sdpa":
            raise RamoleError(
                f"The base model runs {before} attention, and the engine needs PyTorch's own "
                "(sdpa); choose another base model."
            )
        self._before = before
        self.step: FlatCache | None = None
        _served[id(model.config.get_text_config())] = self
        model.set_attn_implementation(NAME)

    def remove(self) -> None:
        """The model's own attention again; nothing where it is that already."""
        self._model.set_attn_implementation(self._before)
        _served.pop(id(self._model.config.get_text_config()), None)


NAME = "ramole"
_served: dict[int, ServedAttention] = {}
"""Models that are served, by the identity of their configuration, which every module holds."""


def _attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **options,
) -> tuple[Tensor, None]:
    step = _served[id(module.config)].step
    if step is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    layer = int(module.layer_idx)  # pyright: ignore[reportArgumentType]
    window = options.get("sliding_window")
    return step.attend(query, layer, scale=options.get("scaling"), window=window), None


AttentionInterface.register(NAME, _attend)
AttentionMaskInterface.register(NAME, sdpa_mask)
