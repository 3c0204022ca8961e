"""The mean input of each block of the bare base over a prompt's tokens.

For methods that read the prompt (`Ask.means`). Each sum runs over one prompt alone, token by token
in float64, so that a mean's bits depend on nobody else, and not on how many read at once.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from ramole_core.layers.install import watch_blocks

REMEMBERED = 16
"""Prompts whose means are kept, one vector a block."""


@contextmanager
def watch_sums(
    model: PreTrainedModel,
    blocks: Collection[str],
    spans: Sequence[tuple[int, int]],
    sums: Sequence[dict[str, Tensor]],
) -> Iterator[None]:
    """Add, in the forward inside, the inputs of these blocks over each span of its tokens, all
    rows' counted as one, to the span's own of `sums`; float64, by path."""

    def see(path: str, x: Tensor) -> None:
        tokens = x.detach().flatten(0, -2).float().cpu()
        for found, (start, end) in zip(sums, spans, strict=True):
            found[path] = sum_of(tokens[start:end], found.get(path))

    handles = watch_blocks(model, blocks, see)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def mean_of(sums: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
    """The means of `count` tokens; float32."""
    return {path: (total / count).float() for path, total in sums.items()}


def sum_of(
    tokens: Float[Tensor, "l i"], before: Float[Tensor, "i"] | None = None
) -> Float[Tensor, "i"]:
    """The sum, by a running one in float64: one order on any device, and in any pieces."""
    every = tokens.double() if before is None else torch.cat([before[None], tokens.double()])
    return every.cumsum(0)[-1]


@torch.no_grad()
def read_means(
    model: PreTrainedModel, blocks: Collection[str], prompts: Sequence[Sequence[int]]
) -> list[dict[str, Tensor]]:
    """The mean inputs of each prompt, of a model that is not served; right-padded, which changes no
    token of a decoder."""
    length = max(map(len, prompts))
    ids = torch.zeros(len(prompts), length, dtype=torch.long)
    for row, one in enumerate(prompts):
        ids[row, : len(one)] = torch.tensor(one)
    spans = [(row * length, row * length + len(one)) for row, one in enumerate(prompts)]
    sums: list[dict[str, Tensor]] = [{} for _ in prompts]
    with watch_sums(model, blocks, spans, sums):
        model(input_ids=ids.to(model.device), use_cache=False, logits_to_keep=1)
    return [mean_of(found, len(one)) for found, one in zip(sums, prompts, strict=True)]


class KnownMeans:
    """A cache of the last prompts' means; thread-safe."""

    def __init__(self, most: int = REMEMBERED):
        self._most, self._lock = most, threading.Lock()
        self._known: OrderedDict[tuple[int, ...], Mapping[str, Tensor]] = OrderedDict()

    def get(
        self, ids: Sequence[int], read: Callable[[Sequence[int]], Mapping[str, Tensor]]
    ) -> Mapping[str, Tensor]:
        """The means of a prompt, read where they are not known."""
        key = tuple(ids)
        with self._lock:
            found = self._known.get(key)
        if found is None:
            found = read(ids)
        with self._lock:
            self._known[key] = found
            self._known.move_to_end(key)
            while len(self._known) > self._most:
                self._known.popitem(last=False)
        return found
