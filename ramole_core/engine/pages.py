"""The memory of pages: for each layer one tensor of keys and one of values, PAGE tokens a page.

The keys of a page lie transposed, so that a vector holds the same place of many keys, and the
values in whole vectors. Numbers of pages stay when the memory grows.
"""

import torch
from torch import Tensor

from ramole_core.kernels.vectors import padded

PAGE = 64
"""Tokens of a page."""
FIRST = 8
"""Pages that are made first; then as many again, whenever they are used up."""


class PageMemory:
    """At most `most` pages, the same in every layer."""

    def __init__(self, most: int):
        self.most = most
        self.version = 0
        """Counts every change of where a layer's pages lie."""
        self.places = 0
        """Pages that there are; their memory is made when a layer's first tokens come."""
        self.keys: dict[int, Tensor] = {}
        """By layer, [places, h, d, PAGE]."""
        self.values: dict[int, Tensor] = {}
        """By layer, [places, h, PAGE, padded(dv)]."""

    @property
    def nbytes(self) -> int:
        """Bytes that are allocated now."""
        return sum(t.nbytes for made in (self.keys, self.values) for t in made.values())

    def layer(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """The pages of a layer, made for keys [1, h, N, d] and values [1, h, N, dv] like these."""
        found = self.keys.get(layer)
        if found is None:
            h, d, wide = keys.shape[1], keys.shape[3], padded(values.shape[3])
            found = _zeros(keys, (self.places, h, d, PAGE))
            self.values[layer] = _zeros(values, (self.places, h, PAGE, wide))
            self.keys[layer] = found
            self.version += 1
        return found, self.values[layer]

    def grow(self) -> range:
        """Allocate more pages and return their numbers; none at the limit. Where there is no memory
        now, all stays as it was, and a later call goes on with what was made."""
        before, places = self.places, min(self.most, max(FIRST, 2 * self.places))
        for made in (self.keys, self.values):
            for layer, old in made.items():
                if len(old) < places:
                    new = _zeros(old, (places, *old.shape[1:]))
                    new[:before] = old[:before]
                    made[layer] = new
                    self.version += 1
        self.places = places
        return range(before, self.places)

    def copy(self, source: int, to: int, *, start: int, end: int) -> None:
        """Copy the tokens at [start, end) of a page to the same places of another."""
        for keys in self.keys.values():
            keys[to, :, :, start:end] = keys[source, :, :, start:end]
        for values in self.values.values():
            values[to, :, start:end] = values[source, :, start:end]


def pages_of(tokens: int) -> int:
    """Pages that so many tokens take."""
    return -(-tokens // PAGE)


def _zeros(like: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Zeros that can be written outside of inference mode too."""
    with torch.inference_mode(False):
        return torch.zeros(shape, dtype=like.dtype, device=like.device)
