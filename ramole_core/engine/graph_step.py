"""A decode step replayed as one CUDA graph: on a GPU the model's some thousand launches cost more
than what they compute.

The second step of a batch is captured, and those after it launch the graph. What it reads of a
request lies in tensors as large as that request may become, so that a graph holds as long as the
batch does. Where a step cannot be captured (a launch that waits, a copy from the CPU), it runs as
it would without.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from ramole_core.engine.capture import CapturedStep
from ramole_core.engine.flat_cache import FlatCache
from ramole_core.engine.gathered_attention import GatheredAttention
from ramole_core.layers import BatchMix, Forward

log = logging.getLogger(__name__)


@runtime_checkable
class Graph(Protocol):
    """The part of `torch.cuda.CUDAGraph` that is used."""

    def replay(self) -> None: ...


class Graphs:
    """Capture the graphs of one served model, until one fails."""

    def __init__(self):
        self.on = True
        """False: steps run without graphs, to compare the two."""
        self.fault = ""
        """Why steps run without graphs; empty: they use them."""

    def takes(self, batch: BatchMix) -> bool:
        """Whether a step of these rows is captured: gates with terms of their own run Python."""
        return self.on and not self.fault and not batch.late

    def capture(self, forward: Forward, run: Callable[[], Tensor]) -> tuple[Graph, Tensor] | None:
        """Capture what `run` launches, without computing it: the graph and the logits that it
        writes; None: it cannot be captured."""
        try:
            _ = forward.row_of, forward.traced and forward.traced.places  # come from the CPU, once
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                logits = run()
        except Exception as error:  # CUDA, a compiler or a model: anything may not be capturable
            self.fault = f"{type(error).__name__}: {error}".splitlines()[0]
            log.warning("Steps run without CUDA graphs (%s).", self.fault)
            if forward.traced is not None:
                forward.traced.forget()
            return None
        return graph, logits


@dataclass
class GraphStep:
    """A captured step."""

    step: CapturedStep
    graph: Graph
    logits: Tensor
    captured: Callable[[], Tensor]
    """Holds the tensors that the graph reads."""
    way: GatheredAttention

    def run(self, ids: Sequence[int], cache: FlatCache) -> Tensor:
        """Logits [b, v] of these tokens, one a request, in memory of their own."""
        self.step.ids.copy_(torch.tensor([list(ids)]))
        self.step.positions.copy_(cache.positions)
        cache.refill(self.way)
        return self.launch()

    def launch(self) -> Tensor:
        """Run the graph on what its tensors hold now."""
        self.graph.replay()
        return self.logits.clone()
