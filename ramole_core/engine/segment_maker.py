"""From a request that was prepared to its segments: one a turn, cut where something is
switched off or weighed anew."""

from collections.abc import Sequence

from torch import Tensor

from ramole_core.composition import Candidate
from ramole_core.engine.faults import fault_of
from ramole_core.engine.placement import Placement, Placer
from ramole_core.engine.prompt import Prepared
from ramole_core.engine.segments import Segment, Segments
from ramole_core.engine.switches import read_switches, weighed
from ramole_core.errors import RamoleError
from ramole_core.layers import Layout
from ramole_core.request import Request


class SegmentMaker:
    """Lets the methods decide; safe in any thread."""

    def __init__(self, layout: Layout, placer: Placer):
        self._layout, self._placer = layout, placer

    def segments(self, prepared: Prepared, *, length: int = 0, bare: bool = False) -> Segments:
        """The request's segments, with what its methods decide, of `length` tokens or more; all of
        the base where `bare`."""
        request, prompt, found, end = prepared.request, prepared.prompt, [], 0
        given = len(prompt.ids) + len(request.prefix_ids)
        for turn, part in zip(prepared.turns, prompt.parts, strict=True):
            start, end = end, end + len(part)
            if turn is prepared.turns[-1]:
                end = max(end + prompt.room, length)
            candidates = () if bare else turn.candidates
            switches = read_switches(request, candidates, self._layout, given=given)
            spans = [(turn.request, start, end)]
            if turn is prepared.turns[-1] and request.later_weights and candidates:
                cut = max(start, given - 1)
                later = weighed(turn.request, request.later_weights, candidates)
                spans = [(turn.request, start, cut), (later, cut, end)]
            for asked, begin, over in spans:
                found += self._switched(asked, candidates, switches, start=begin, end=over)
        return Segments(tuple(found))

    def _switched(
        self,
        asked: Request,
        candidates: Sequence[Candidate],
        switches: Sequence[tuple[int, Tensor]],
        *,
        start: int,
        end: int,
    ) -> list[Segment]:
        """Segments of tokens that are asked one way: one, and one more from each position on where
        something goes off."""
        found, off = [], None
        for at, more in [*switches, (end, None)]:
            if start < min(at, end):
                placement = self.place(asked, candidates, off)
                k = placement.decision.weights.shape[1]
                names = tuple(one.name for one in candidates[:k])
                found.append(Segment(min(at, end), placement, names))
                start = min(at, end)
            off = more
        return found

    def place(
        self,
        request: Request,
        candidates: Sequence[Candidate],
        off: Tensor | None = None,
        *,
        passing: bool = False,
    ) -> Placement:
        """What the method decides, `passing` as of the placer; raises RamoleError, also for a fault
        that nobody foresaw."""
        try:
            return self._placer.prepare(request, candidates, off, passing=passing)
        except RamoleError:
            raise
        except Exception as error:
            raise fault_of(error, request.method) from error
