"""Keys and values of the rows that decode, in preallocated memory of a bounded size.

A row gets a place for its prompt and its longest answer in the arena of that length class, so
nothing is copied from token to token; the rows of an arena lie side by side, and a decode step
attends once per arena, over no more than its longest row.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, Cache, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from ramole_core.errors import RamoleError

SHORTEST = 64
"""Tokens of the smallest length class; each next one has twice as many."""
KINDS = ("full_attention", "sliding_attention")


@dataclass
class Arena:
    """Places for rows of at most `tokens` tokens."""

    tokens: int
    keys: list[Tensor] = field(default_factory=list)
    """By layer, [places, h, tokens, d]; empty before the first row."""
    values: list[Tensor] = field(default_factory=list)
    rows: list[Hashable] = field(default_factory=list)
    """The row at each place in use; they have no holes."""
    lengths: list[int] = field(default_factory=list)
    reserved: int = 0
    """Rows that were admitted to this arena, those included that still read their prompt."""

    @property
    def places(self) -> int:
        return self.keys[0].shape[0] if self.keys else 0


class KvCache:
    """All arenas of one model, within `limit` bytes."""

    def __init__(self, model: PreTrainedModel, *, limit: int):
        """Raises RamoleError for a model with layers that are not attention."""
        config = model.config.get_text_config()
        kinds = set(getattr(config, "layer_types", None) or KINDS) - set(KINDS)
        if kinds:
            raise RamoleError(
                f"The base model has layers of type {', '.join(sorted(kinds))}, and the engine "
                "keeps keys and values of attention layers only; choose another base model."
            )
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self.token_bytes = 2 * config.num_hidden_layers * heads * size * model.dtype.itemsize
        self.limit = limit
        self._arenas: dict[int, Arena] = {}

    @property
    def nbytes(self) -> int:
        """Bytes that are allocated now."""
        return sum(a.places * a.tokens for a in self._arenas.values()) * self.token_bytes

    @property
    def most_tokens(self) -> int:
        """Tokens of the longest row that could be admitted into an empty cache."""
        return self.limit // self.token_bytes

    def check(self, tokens: int) -> None:
        """Raises RamoleError where a row of that length could never run."""
        if _class_of(tokens) * self.token_bytes > self.limit:
            raise RamoleError(
                f"The prompt and its answer may take {tokens} tokens, and the cache of keys and "
                f"values holds {self.most_tokens}; shorten them, or raise RAMOLE_KV_CACHE_MB."
            )

    def reserve(self, tokens: int) -> Arena | None:
        """A place for a row of at most this many tokens; None where there is none now.

        Every reservation ends in `remove`, or in `give_back` where the row never decoded.
        """
        size = _class_of(tokens)
        arena = self._arenas.setdefault(size, Arena(size))
        planned = sum(max(a.reserved, len(a.rows)) * a.tokens for a in self._arenas.values())
        if (planned + size) * self.token_bytes > self.limit:
            return None
        arena.reserved += 1
        return arena

    def give_back(self, arena: Arena) -> None:
        """A reservation that is not needed any more."""
        arena.reserved -= 1
        self._shrink(arena)

    def append(self, arena: Arena, row: Hashable, prompt: Cache, index: int, length: int) -> None:
        """Put a row whose prompt was read (row `index` of `prompt`, right-padded) behind the
        others of its reserved arena."""
        place = len(arena.rows)
        if place == arena.places:
            self._resize(arena, min(arena.reserved, max(2 * place, 1)), prompt)
        for layer, (keys, values) in enumerate(_read(prompt)):
            arena.keys[layer][place, :, :length] = keys[index, :, :length]
            arena.values[layer][place, :, :length] = values[index, :, :length]
        arena.rows.append(row)
        arena.lengths.append(length)

    def remove(self, row: Hashable) -> None:
        """Free a row's place; the last row of its arena moves there."""
        arena = next(a for a in self._arenas.values() if row in a.rows)
        place, last = arena.rows.index(row), len(arena.rows) - 1
        if place != last:
            n = arena.lengths[last]
            for layer in range(len(arena.keys)):
                arena.keys[layer][place, :, :n] = arena.keys[layer][last, :, :n]
                arena.values[layer][place, :, :n] = arena.values[layer][last, :, :n]
            arena.rows[place], arena.lengths[place] = arena.rows[last], arena.lengths[last]
        arena.rows.pop()
        arena.lengths.pop()
        self.give_back(arena)

    def rows(self) -> list[Hashable]:
        """Every row, in the order of a decode step."""
        return [row for arena in self._arenas.values() for row in arena.rows]

    def decode(self) -> "DecodeStep":
        """What one forward of one token of every row needs; it makes each row a token longer."""
        return DecodeStep([arena for arena in self._arenas.values() if arena.rows])

    def _shrink(self, arena: Arena) -> None:
        if not arena.reserved:
            arena.keys, arena.values = [], []
        elif arena.places > 2 * arena.reserved:
            self._resize(arena, arena.reserved, None)

    def _resize(self, arena: Arena, places: int, like: Cache | None) -> None:
        held = len(arena.rows)
        if not arena.keys:
            assert like is not None
            arena.keys = [_places(k, places, arena.tokens) for k, _ in _read(like)]
            arena.values = [_places(v, places, arena.tokens) for _, v in _read(like)]
            return
        for tensors in (arena.keys, arena.values):
            for layer, old in enumerate(tensors):
                new = _places(old, places, arena.tokens)
                new[:held] = old[:held]
                tensors[layer] = new


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


def _class_of(tokens: int) -> int:
    size = SHORTEST
    while size < tokens:
        size *= 2
    return size


def _read(cache: Cache) -> list[tuple[Tensor, Tensor]]:
    """Keys and values of a prompt that was read, by layer."""
    return [(layer.keys, layer.values) for layer in cache.layers]  # pyright: ignore


def _places(like: Tensor, places: int, tokens: int) -> Tensor:
    """Zeros, so that what is masked is at least finite."""
    return like.new_zeros(places, like.shape[1], tokens, like.shape[3])
