"""How much of an answer each of its adapters had, from its trace."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ramole_core.request import Generation


def shares_of(answer: "Generation") -> list[float]:
    """For each of the answer's adapters, its part of all weight, 0 to 1; empty without a trace.

    Weights count by their size, over the tokens of the answer, all layers and modules.
    """
    trace = answer.trace
    if trace is None:
        return []
    first = trace.prompt_length - 1  # it predicts the first token of the answer
    weights = np.abs(trace.weights[first:].astype(np.float64)).sum((0, 1, 2))
    own = [weights[trace.adapters.index(name)] for name in answer.adapters]
    return [float(one / (sum(own) or 1.0)) for one in own]
