"""Keys and values of the rows that decode, in preallocated memory of a bounded size.

A row gets a place for its prompt and its longest answer in the arena of that length class, so
nothing is copied from token to token; the rows of an arena lie side by side, and a decode step
attends once per arena, over no more than its longest row.
"""

from collections.abc import Hashable
from dataclasses import dataclass, field

from torch import Tensor
from transformers import Cache, PreTrainedModel

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

    def in_use(self) -> list[Arena]:
        """The arenas that hold rows, in the order of `rows`."""
        return [arena for arena in self._arenas.values() if arena.rows]

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
