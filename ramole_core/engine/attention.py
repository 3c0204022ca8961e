"""The attention of a decode step: every row's new token over the keys and values of its arena.

The model runs with its own code; a cache that writes into the arenas and an attention function that
reads them take the places of its own while a step runs.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, Cache, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from ramole_core.engine.kv import Arena
from ramole_core.errors import RamoleError


class DecodeStep(Cache):
    """The cache that a model sees while every row decodes one token.

    `update` writes the new keys and values where they belong, and `attend` reads the arenas
    without a copy.
    """

    def __init__(self, arenas: Sequence[Arena]):
        super().__init__(layers=[])
        self._arenas = arenas
        device = arenas[0].keys[0].device
        lengths = [length for arena in arenas for length in arena.lengths]
        self.positions = torch.tensor(lengths, device=device)[:, None]
        """[b, 1] the place of the token that is fed now."""
        self._places = [torch.arange(len(arena.rows), device=device) for arena in arenas]
        self._ends = [torch.tensor(arena.lengths, device=device) for arena in arenas]
        self._masks: dict[tuple[int, int | None], Tensor | None] = {}

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args, **kwargs
    ) -> tuple[Tensor, Tensor]:
        start = 0
        for arena, places, ends in zip(self._arenas, self._places, self._ends, strict=True):
            part = slice(start, start + len(places))
            arena.keys[layer_idx][places, :, ends] = key_states[part, :, 0]
            arena.values[layer_idx][places, :, ends] = value_states[part, :, 0]
            start = part.stop
        return key_states, value_states

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return int(self.positions.max())

    def attend(
        self, query: Tensor, layer: int, *, scale: float | None, window: int | None
    ) -> Tensor:
        """softmax(q K^T) V of every row over its own tokens: [b, hq, 1, d] -> [b, 1, hq, d].

        The query heads of one key head are its queries, so grouped heads need no copy of K and V.
        """
        found, start = [], 0
        for n, arena in enumerate(self._arenas):
            b, most = len(arena.rows), max(arena.lengths) + 1
            keys = arena.keys[layer][:b, :, :most]
            values = arena.values[layer][:b, :, :most]
            q = query[start : start + b]
            packed = q.reshape(b, keys.shape[1], -1, q.shape[-1])
            out = scaled_dot_product_attention(
                packed, keys, values, attn_mask=self._mask(n, window, query), scale=scale
            )
            found.append(out.reshape(b, 1, -1, out.shape[-1]))
            start += b
        return found[0] if len(found) == 1 else torch.cat(found)

    def _mask(self, n: int, window: int | None, query: Tensor) -> Tensor | None:
        """[b, 1, 1, tokens] added to the scores of arena n; None where all rows are as long."""
        if (n, window) not in self._masks:
            ends = self._ends[n].to(query.device)[:, None]
            at = torch.arange(int(ends.max()) + 1, device=query.device)
            seen = at <= ends
            if window is not None:
                seen &= at > ends - window
            mask = torch.zeros(seen.shape, dtype=query.dtype, device=query.device)
            mask = mask.masked_fill_(~seen, torch.finfo(query.dtype).min)[:, None, None]
            self._masks[n, window] = None if bool(seen.all()) else mask
        return self._masks[n, window]

    def advance(self) -> None:
        """Every row is one token longer."""
        for arena in self._arenas:
            arena.lengths = [length + 1 for length in arena.lengths]


class ServedAttention:
    """The model's attention while it is served: ours in a decode step, its own elsewhere."""

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
        self.step: DecodeStep | None = None
        _served[id(model.config.get_text_config())] = self
        model.set_attn_implementation(NAME)

    def remove(self) -> None:
        """The model's own attention again."""
        self._model.set_attn_implementation(self._before)
        del _served[id(self._model.config.get_text_config())]


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
