"""Divide a prefill chunk: which prompts are read now, and how many tokens of each.

In the order in which they came, but half of a chunk is for prompts that end with it, so that a
short one does not wait until a long one is read. A request waits while one before it reads what it
needs as well, and finds it in the cache then.
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
    first = _share(reading[0], budget) if reading and budget > 0 else None
    if first is None:
        return []
    chunk, left = [first], budget // 2 if first.count > budget // 2 else budget - first.count
    for state in sorted(reading[1:], key=lambda state: state.unfed):
        ends = state.unfed == _share(state, left).count
        if ends and not any(_waits_for(state, share) for share in chunk):
            chunk.append(_share(state, left))
            left -= state.unfed
    left = budget - sum(share.count for share in chunk[1:])
    chunk[0] = _share(first.state, left)
    left -= chunk[0].count
    taken = [share.state for share in chunk]
    for state in reading:
        if left > 0 and state not in taken and not any(_waits_for(state, one) for one in chunk):
            chunk.append(_share(state, left))
            left -= chunk[-1].count
    return chunk


def _share(state: RequestState, most: int) -> Share:
    return Share(state, min(most, state.unfed, state.segment.end - state.fed))


def _waits_for(state: RequestState, share: Share) -> bool:
    """Whether the other request is reading tokens that this one could share."""
    other = share.state
    if state.request.trace and not other.request.trace and state.segments.mixed:
        return False  # it needs the trace rows
    end = max(0, min(other.fed + share.count, len(state.content) - 1, len(other.content)))
    mine, its = state.content[:end], other.content[:end]
    differ = np.flatnonzero((mine != its).any(1))
    common = int(differ[0]) if len(differ) else end
    return common - state.fed >= WORTH
