"""Collect the trace rows of one request into a trace."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ramole_core.engine.segments import Segment, Segments
from ramole_core.layers import Layout
from ramole_core.layers.traced import CONTRIBUTION, WEIGHT
from ramole_core.request import Trace


class TraceRow(NamedTuple):
    """A trace row: one token."""

    weights: Float[np.ndarray, "layer module k"]
    contribution: Float[np.ndarray, "layer module k"]
    present: Bool[np.ndarray, "layer module k"]


@dataclass
class Gates:
    """Weights and contributions of the tokens that adapters change."""

    parts: list[tuple[int, Float[Tensor, "l 2 layer module k"]]] = field(default_factory=list)
    """Position of the first token, and the trace rows from there on, float16."""
    present: dict[int, Bool[np.ndarray, "layer module k"]] = field(default_factory=dict)
    """Which adapters have which module in each segment so far, by its placement's identity."""

    def add(
        self,
        start: int,
        gates: Float[Tensor, "l 2 layer module k"] | None,
        segment: Segment,
        layout: Layout,
    ) -> None:
        """Add the trace rows of tokens from `start` on, in this segment; None where no adapter
        works."""
        self._present(segment, layout)
        if gates is not None:
            self.parts.append((start, gates))

    def add_found(
        self, start: int, found: Sequence[Float[Tensor, "2 layer module _"] | None]
    ) -> None:
        """Add the rows of tokens found in the cache; None where no adapter worked. Turns may have
        different numbers of adapters."""
        for size, run in groupby(enumerate(found, start), lambda one: _size(one[1])):
            if size is not None:
                places, gates = zip(*run, strict=True)
                self.parts.append((places[0], torch.stack(gates)))

    def last(self, segment: Segment) -> TraceRow | None:
        present = self.present.get(id(segment.placement))
        if present is None:
            return None
        if not segment.mixed:
            nothing = np.zeros(present.shape, np.float16)
            return TraceRow(nothing, nothing, present)
        weights, contribution = self.parts[-1][1][-1].numpy()
        return TraceRow(weights, contribution, present)

    def _present(self, segment: Segment, layout: Layout) -> Bool[np.ndarray, "layer module k"]:
        found = self.present.get(id(segment.placement))
        if found is None:
            found = layout.as_trace(segment.placement.has[None])[0].numpy()
            self.present[id(segment.placement)] = found
        return found

    def trace(
        self,
        ids: Sequence[int],
        segments: Segments,
        *,
        tokens: list[str],
        prompt_length: int,
        layout: Layout,
    ) -> Trace:
        """The whole trace: row t predicts token t+1; the last token is never fed, so its row is
        0."""
        names, places = segments.names, layout.places
        size = len(ids), len(places.layers), len(places.modules), len(names)
        told, present = np.zeros((2, *size), np.float16), np.zeros(size, np.bool_)
        fed, start = len(ids) - 1, 0
        for segment in segments.all:
            end = min(segment.end, fed)
            columns = [names.index(name) for name in segment.names]
            if columns and end > start:
                told[:, start:end][..., columns] = self._between(start, end, segment, layout)
                present[start:end][..., columns] = self._present(segment, layout)
            start = max(start, end)
        return Trace(
            tokens=tokens,
            token_ids=list(ids),
            prompt_length=prompt_length,
            adapters=names,
            layers=list(places.layers),
            modules=list(places.modules),
            weights=told[WEIGHT],
            contribution=told[CONTRIBUTION],
            present=present,
        )

    def _between(
        self, start: int, end: int, segment: Segment, layout: Layout
    ) -> Float[np.ndarray, "2 l layer module k"]:
        places = layout.places
        size = len(places.layers), len(places.modules), len(segment.names)
        found = torch.zeros(end - start, 2, *size, dtype=torch.float16)
        for first, gates in self.parts:
            low, high = max(first, start), min(first + len(gates), end)
            if low < high:
                found[low - start : high - start] = gates[low - first : high - first]
        return found.transpose(0, 1).numpy()


def _size(gates: Tensor | None) -> torch.Size | None:
    return None if gates is None else gates.shape
