"""The gates of one request as they come, and the trace that they are in the end."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ramole_core.engine.segments import Segment, Segments
from ramole_core.layers import Layout
from ramole_core.request import Trace


@dataclass
class Gates:
    """Weights of the tokens that gates weighed; fixed ones are known without."""

    parts: list[tuple[int, Float[Tensor, "l layer module k"]]] = field(default_factory=list)
    """Position of the first token, and the weights from there on, float16."""
    fixed: dict[int, Float[np.ndarray, "layer module k"]] = field(default_factory=dict)
    """Weights of segments without a gate, by the identity of their placement."""

    def add(self, start: int, gates: Float[Tensor, "l layer module k"]) -> None:
        """The gates of tokens from `start` on."""
        self.parts.append((start, gates))

    def add_found(
        self, start: int, found: Sequence[Float[Tensor, "layer module _"] | None]
    ) -> None:
        """Those of tokens that were found in the cache; None where no gate weighed one. Turns may
        have different numbers of adapters."""
        for size, run in groupby(enumerate(found, start), lambda one: _size(one[1])):
            if size is not None:
                places, gates = zip(*run, strict=True)
                self.add(places[0], torch.stack(gates))

    def last(self, segment: Segment) -> Float[np.ndarray, "layer module k"] | None:
        """The weights at the token that was fed last, which is in this segment."""
        if segment.gated:
            return self.parts[-1][1][-1].numpy() if self.parts else None
        return self.fixed.get(id(segment.placement))

    def know(self, segment: Segment, layout: Layout) -> None:
        """Keep the weights of a segment without a gate."""
        if not segment.gated and id(segment.placement) not in self.fixed:
            weights = segment.placement.decision.weights
            whole = layout.as_trace(weights.half()[None])[0]
            self.fixed[id(segment.placement)] = whole.numpy()

    def trace(
        self,
        ids: Sequence[int],
        segments: Segments,
        *,
        tokens: list[str],
        prompt_length: int,
        layout: Layout,
    ) -> Trace:
        """Row t is the gate at position t, which predicts token t+1; the last token is never fed,
        so its row is 0."""
        names, places = segments.names, layout.places
        size = len(ids), len(places.layers), len(places.modules)
        weights = np.zeros((*size, len(names)), np.float16)
        fed, start = len(ids) - 1, 0
        for segment in segments.all:
            end = min(segment.end, fed)
            columns = [names.index(name) for name in segment.names]
            if columns and end > start:
                weights[start:end][..., columns] = self._between(start, end, segment, layout)
            start = max(start, end)
        return Trace(
            tokens=tokens,
            token_ids=list(ids),
            prompt_length=prompt_length,
            adapters=names,
            layers=list(places.layers),
            modules=list(places.modules),
            weights=weights,
        )

    def _between(
        self, start: int, end: int, segment: Segment, layout: Layout
    ) -> Float[np.ndarray, "l layer module k"]:
        if not segment.gated:
            self.know(segment, layout)
            fixed = self.fixed[id(segment.placement)]
            return np.broadcast_to(fixed, (end - start, *fixed.shape))
        found = torch.zeros(
            end - start,
            len(layout.places.layers),
            len(layout.places.modules),
            len(segment.names),
            dtype=torch.float16,
        )
        for first, gates in self.parts:
            low, high = max(first, start), min(first + len(gates), end)
            if low < high:
                found[low - start : high - start] = gates[low - first : high - first]
        return found.numpy()


def _size(gates: Tensor | None) -> torch.Size | None:
    return None if gates is None else gates.shape
