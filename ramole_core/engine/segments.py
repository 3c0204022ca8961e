"""A request as segments: runs of its tokens that are mixed one way, the last of them open.

Earlier turns of a chat, a continued answer, a "what if" from some token on: all are requests of
several segments, and one that is nothing of this has one.
"""

from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from ramole_core.composition import Candidate
from ramole_core.engine.kv import KvCache
from ramole_core.engine.placement import Placement, Placer
from ramole_core.engine.prompt import Prepared, Turn, keep, leave_out
from ramole_core.engine.switches import read_switches, weighed
from ramole_core.turns import never, still


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
        found: dict[Hashable, int] = {}
        for segment in self.all:
            found |= segment.placement.made
        return found

    def at(self, position: int) -> int:
        return next(n for n, one in enumerate(self.all) if position < one.end)

    def content(self, ids: Sequence[int], start: int = 0) -> np.ndarray:
        """The cache keys of tokens, [n, 3]; `ids` begin at position `start`."""
        end = start + len(ids)
        runs = [
            (min(one.end, end) - start, one.placement.key) for one in self.all if one.end > start
        ]
        return KvCache.content(ids, runs)


class SegmentMaker:
    """Make segments by the methods' decisions: one a turn, cut where something is switched off or
    reweighted; thread-safe."""

    def __init__(self, placer: Placer):
        self.placer = placer

    def segments(
        self,
        prepared: Prepared,
        *,
        length: int = 0,
        bare: bool = False,
        cancelled: Callable[[], bool] = never,
    ) -> Segments:
        """The request's segments, with what its methods decide, of `length` tokens or more; all of
        the base where `bare`. Raises Cancelled where `cancelled` is true between two turns."""
        prepared = leave_out(prepared)
        prompt, end = prepared.prompt, 0
        found: list[Segment] = []
        for turn, part in zip(prepared.turns, prompt.parts, strict=True):
            if not bare:
                still(cancelled)
            start, end = end, end + len(part)
            if turn is prepared.turns[-1]:
                end = max(end + prompt.room, length)
            candidates = () if bare else turn.candidates
            found += self._of_turn(prepared, turn, candidates, start=start, end=end)
        same: dict[bytes, Placement] = {}  # turns that are mixed one way share its tables
        return Segments(
            tuple(
                replace(one, placement=same.setdefault(one.placement.key, one.placement))
                for one in found
            )
        )

    def with_subset(self, prepared: Prepared, whole: Segments, left: Collection[int]) -> Segments:
        """The request's segments `whole`, with only these of the answer's adapters, by number, in
        the turn that is answered."""
        asked = keep(prepared, left)
        cut = len(prepared.prompt.ids) - len(prepared.prompt.parts[-1])
        starts = (0, *(one.end for one in whole.all[:-1]))
        before = [
            replace(one, end=min(one.end, cut))
            for start, one in zip(starts, whole.all, strict=True)
            if start < cut
        ]
        turn, end = asked.turns[-1], whole.open.end
        after = self._of_turn(asked, turn, turn.candidates, start=cut, end=end, ephemeral=True)
        return Segments((*before, *after))

    def _of_turn(
        self,
        prepared: Prepared,
        turn: Turn,
        candidates: Sequence[Candidate],
        *,
        start: int,
        end: int,
        ephemeral: bool = False,
    ) -> list[Segment]:
        """The segments of one turn, `ephemeral` as in `Placer.prepare`."""
        request, prompt = prepared.request, len(prepared.prompt.ids)
        given = prompt + len(request.prefix_ids)
        switches = read_switches(request, candidates, self.placer.layout, given=given)
        later, later_from = turn.request, end
        if end > prompt and request.later_weights and candidates:
            later = weighed(turn.request, request.later_weights, candidates)
            later_from = max(start, given - 1)
        cuts = {*(at for at, _ in switches), later_from, end}
        found = []
        for begin, over in pairwise((start, *sorted(at for at in cuts if start < at <= end))):
            asked = turn.request if begin < later_from else later
            off = next((off for at, off in reversed(switches) if at <= begin), None)
            placement = self.placer.prepare(asked, candidates, off, ephemeral=ephemeral)
            k = placement.decision.weights.shape[1]
            names = tuple(one.name for one in candidates[:k])
            found.append(Segment(over, placement, names))
        return found
