"""Divide a prefill chunk: which prompts are read now, and how many tokens of each.

In the order in which they came; a request waits while one before it reads what it needs as well,
and finds it in the cache then.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ramole_core.engine.request_state import RequestState

WORTH = 8
"""Tokens in common that are worth waiting for."""


@dataclass(frozen=True)
class Share:
    """One request's tokens in a chunk."""

    state: RequestState
    count: int


def next_chunk(reading: Sequence[RequestState], budget: int) -> list[Share]:
    """Choose as many tokens as the budget allows, each request's within one segment."""
    chunk: list[Share] = []
    for state in reading:
        if budget <= 0:
            break
        if any(_waits_for(state, share) for share in chunk):
            continue
        count = min(budget, state.unfed, state.segment.end - state.fed)
        chunk.append(Share(state, count))
        budget -= count
    return chunk


def _waits_for(state: RequestState, share: Share) -> bool:
    """Whether the other request is reading tokens that this one could share."""
    other = share.state
    if state.request.trace and not other.request.trace and state.segments.mixed:
        return False  # it needs the trace rows
    end = min(other.fed + share.count, len(state.content) - 1)
    mine, its = state.content[:end], other.content[:end]
    differ = np.flatnonzero((mine != its).any(1))
    common = int(differ[0]) if len(differ) else end
    return common - state.fed >= WORTH
