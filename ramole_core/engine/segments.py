"""A request as segments: runs of its tokens that are mixed one way, the last of them open.

Earlier turns of a chat, an answer that goes on, a "what if" from some token on: all are requests of
several segments, and one that is nothing of this has one.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from ramole_core.engine.kv import KvCache
from ramole_core.engine.placement import Placement


@dataclass(frozen=True)
class Segment:
    """Tokens that are mixed one way."""

    end: int
    """One past its last token; of the open one: what the request may become at most."""
    placement: Placement
    names: tuple[str, ...] = ()
    """Its adapters, in the placement's order."""

    @property
    def mixed(self) -> bool:
        """Whether adapters are at work, so that each of its tokens has a row in a trace."""
        return bool(self.placement.adapters)


@dataclass(frozen=True)
class Segments:
    """All segments of a request, in order."""

    all: tuple[Segment, ...]

    @property
    def open(self) -> Segment:
        """The last segment, which has the answer."""
        return self.all[-1]

    @property
    def names(self) -> list[str]:
        """The answer's adapters, then those that only earlier turns had."""
        every = [*self.open.names, *(name for one in self.all for name in one.names)]
        return list(dict.fromkeys(every))

    @property
    def mixed(self) -> bool:
        return any(segment.mixed for segment in self.all)

    @property
    def made(self) -> dict[Hashable, int]:
        """Bytes of their merges and bypasses, by key."""
        found: dict[Hashable, int] = {}
        for segment in self.all:
            found |= segment.placement.made
        return found

    def at(self, position: int) -> int:
        """The segment that a token is in."""
        return next(n for n, one in enumerate(self.all) if position < one.end)

    def content(self, ids: Sequence[int], start: int = 0) -> np.ndarray:
        """The cache keys of tokens, [n, 3]; `ids` begin at position `start`."""
        end = start + len(ids)
        runs = [
            (min(one.end, end) - start, one.placement.key) for one in self.all if one.end > start
        ]
        return KvCache.content(ids, runs)
