"""Trace a part of a forward's tokens, such as an expert's.

What is found goes to the whole forward's places; at tokens that came to another expert the weight
and the contribution stay 0, as of a module that was not used.
"""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ramole_core.layers.traced import Traced


class TracedPart:
    """A view of `Traced` on the forward's tokens at `tokens`, ascending."""

    def __init__(self, whole: Traced, tokens: Sequence[int]):
        self.rows = whole.rows
        self._whole, self._tokens = whole, np.array(tokens, np.int32)
        own = np.isin(self._tokens, whole.tokens)
        self._at = np.flatnonzero(own)
        self._mine = self._tokens[own]
        self._found = np.searchsorted(whole.tokens, self._mine)
        """Their places among the traced ones."""

    @cached_property
    def places(self) -> Int[Tensor, "n"]:
        """Places of the traced tokens in the part, on the model's device."""
        return torch.from_numpy(self._at).to(self._whole.places.device)

    def room(self, module: int, m: int) -> np.ndarray:
        """[2, m, N, k]: where a kernel writes."""
        k = self._whole.told.shape[-1]
        return np.zeros((2, m, len(self._tokens), k), np.float32)

    def take(self, module: int, told: np.ndarray) -> None:
        """Take what was written there, of the modules from `module` on."""
        self._whole.told[:, module : module + told.shape[1], self._tokens] = told

    def write(
        self, module: int, alpha: Float[Tensor, "m n k"], lengths: Float[Tensor, "m n k"]
    ) -> None:
        """As `Traced.write`."""
        self._whole.told_later.append((module, alpha, lengths, self._mine))

    def see(self, g: int, block: int, j: int, y: Float[Tensor, "n o"]) -> None:
        """As `Traced.see`."""
        module = self._whole.layout.first(g, block) + j
        lengths = y[self.places].float().norm(dim=-1)
        if self._whole.compiled:
            self._whole.lengths.found[module, self._found] = lengths.numpy()
        else:
            self._whole.seen_later.append((module, lengths, self._found))
