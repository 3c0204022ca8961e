"""The cache of a flat forward: tokens of many requests, their keys and values in pages.

It takes the place of the model's own cache while a step runs, and checks that each layer attends
over the tensors that it wrote, once for each time that it wrote.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import Cache

from ramole_core.engine.compiled_attention import CompiledAttention
from ramole_core.engine.gathered_attention import GatheredAttention
from ramole_core.engine.kv import KvCache, KvSequence
from ramole_core.errors import Unsupported
from ramole_core.kernels.program import Program


@dataclass(frozen=True)
class Span:
    """Consecutive tokens of one request in a flat forward."""

    sequence: KvSequence
    start: int
    """Tokens that are before them."""
    count: int


class FlatCache(Cache):
    """The cache object that a model gets in a forward of many requests' tokens, side by side.

    `update` writes their keys and values into the pages of their sequences, and `attend` reads them
    there.
    """

    def __init__(self, kv: KvCache, spans: Sequence[Span], *, device: torch.device | str = "cpu"):
        super().__init__(layers=[])
        self._memory = kv.memory
        for span in spans:
            assert span.start >= span.sequence.length, "these tokens are in the cache already"
            kv.reach(span.sequence, span.start + span.count)
        self._written: dict[int, tuple[Tensor, Tensor]] = {}
        """Keys and values of the layers that have not attended yet."""
        self._counts = np.array([span.count for span in spans], np.int64)
        self._starts = np.array([span.start for span in spans], np.int64)
        self._tables = [span.sequence.table for span in spans]
        self._most = max((span.sequence.most for span in spans), default=0)
        n = int(self._counts.sum())
        firsts = np.cumsum(self._counts) - self._counts
        places = np.arange(n) + np.repeat(self._starts - firsts, self._counts)
        self.positions = torch.from_numpy(places)[None].to(device)
        """[1, N] the place of each token in its sequence."""
        long = np.array([span.sequence.long for span in spans], bool)
        self.long = torch.from_numpy(np.repeat(long, self._counts))[None] if long.any() else None
        """[1, N] which tokens are of requests past the length that a rotary embedding was first
        trained for (longrope); None: no token is."""
        self.mask = torch.ones(1, n, dtype=torch.bool, device=device)
        """The mask given to the model: no token is padding."""
        self._way: CompiledAttention | GatheredAttention | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args, **kwargs
    ) -> tuple[Tensor, Tensor]:
        keys, values = self._memory.layer(layer_idx, key_states, value_states)
        if self._way is None:
            way = CompiledAttention if CompiledAttention.knows(keys) else GatheredAttention
            self._way = way(self._starts, self._counts, self._tables, like=keys)
        if layer_idx in self._written:
            raise Unsupported(f"layer {layer_idx} writes keys and values twice")
        self._written[layer_idx] = key_states, value_states
        self._way.write(keys, values, key_states, value_states)
        return key_states, value_states

    def check_written(self, layer: int, key: Tensor, value: Tensor) -> None:
        """Raise Unsupported unless the layer attends over the keys and values it wrote."""
        written = self._written.pop(layer, None)
        if written is None:
            raise Unsupported(f"layer {layer} attends without having written keys and values")
        if written[0] is not key or written[1] is not value:
            raise Unsupported(f"layer {layer} changes keys or values after they were written")

    def check_attended(self) -> None:
        """Raise Unsupported where a layer wrote keys and values but attended by itself."""
        if self._written:
            layers = ", ".join(map(str, sorted(self._written)))
            raise Unsupported(f"layers {layers} attend by code of their own")

    @property
    def like(self) -> Tensor:
        return next(iter(self._memory.keys.values()))

    def take_over(self, program: Program) -> None:
        """Point a recorded program at the tokens of this step."""
        way = CompiledAttention(self._starts, self._counts, self._tables, like=self.like)
        way.take_over(program)
        self._way = way

    def make_room(self) -> GatheredAttention:
        """Allocate tensors as large as these requests may become; keys and values of an earlier
        step exist."""
        tables, like = self._tables, self.like
        self._way = GatheredAttention(
            self._starts, self._counts, tables, like=like, room=self._most
        )
        return self._way

    def refill(self, way: GatheredAttention) -> None:
        """Refill the tensors of a captured step with the tokens of this one."""
        way.fill(self._starts, self._tables)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return int((self._starts + self._counts).max()) - 1

    def get_query_offset(self, layer_idx: int = 0) -> int:
        """Return 0: masks here have no sizes, only a window."""
        return 0

    def get_mask_sizes(self, query_length: int, layer_idx: int = 0) -> tuple[int, int]:
        """As above."""
        return query_length, 0

    def attend(
        self,
        query: Tensor,
        layer: int,
        *,
        scale: float | None,
        window: int | None,
        cap: float | None = None,
        sinks: Tensor | None = None,
    ) -> Tensor:
        """softmax(scale q K^T) V of each token over its own request's tokens, those behind it and
        those further back than `window` left out: [1, hq, N, d] -> [1, N, hq, dv]. With `cap`, a
        score s is cap tanh(s / cap); `sinks` [hq] are scores of no value beside each head's."""
        keys, values = self._memory.keys[layer], self._memory.values[layer]
        if scale is None:
            scale = 1 / math.sqrt(query.shape[-1])
        assert self._way is not None, "keys and values come first"
        return self._way.attend(
            query, keys, values, scale=scale, window=window, cap=cap, sinks=sinks
        )
