"""Compute a method's PyTorch scores in tiles of one size, each token at its own place.

PyTorch chooses how it sums by the number of rows. A token at position p always stands at p mod TILE
of a tile of TILE rows, so whatever it is computed with, it is summed alike.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from ramole_core.composition import Signal

TILE = 8
"""Tokens; places without one hold a copy of one that is there."""


def in_tiles(score: Callable[[Signal], Tensor], signal: Signal, start: int) -> Tensor:
    """`score` of a signal whose first token has position `start`, tile by tile: [l, k]."""
    l = signal.x.shape[0]
    found = []
    at = 0
    while at < l:
        place = (start + at) % TILE
        count = min(TILE - place, l - at)

        def tile(t: Tensor, at: int = at, count: int = count, place: int = place) -> Tensor:
            whole = t[at].expand(TILE, *t.shape[1:]).clone()
            if count > 1:  # else all of it is that token
                whole[place : place + count] = t[at : at + count]
            return whole

        norms = None if signal.norms is None else tile(signal.norms)
        part = Signal(signal.path, tile(signal.x), tuple(tile(u) for u in signal.u), norms)
        found.append(score(part)[place : place + count])
        at += count
    return torch.cat(found)
