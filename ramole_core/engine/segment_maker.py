"""Make a prepared request's segments: one a turn, cut where something is switched off or
reweighted."""

from collections.abc import Collection, Sequence
from dataclasses import replace

from torch import Tensor

from ramole_core.composition import Candidate
from ramole_core.engine.placement import Placement, Placer
from ramole_core.engine.prompt import Prepared, Turn, keep, leave_out
from ramole_core.engine.segments import Segment, Segments
from ramole_core.engine.switches import read_switches, weighed
from ramole_core.errors import RamoleError, fault_of
from ramole_core.layers import Layout
from ramole_core.request import Request


class SegmentMaker:
    """Make segments by the methods' decisions; thread-safe."""

    def __init__(self, layout: Layout, placer: Placer):
        self._layout, self._placer = layout, placer

    def segments(self, prepared: Prepared, *, length: int = 0, bare: bool = False) -> Segments:
        """The request's segments, with what its methods decide, of `length` tokens or more; all of
        the base where `bare`."""
        prepared = leave_out(prepared)
        prompt, found, end = prepared.prompt, [], 0
        for turn, part in zip(prepared.turns, prompt.parts, strict=True):
            start, end = end, end + len(part)
            if turn is prepared.turns[-1]:
                end = max(end + prompt.room, length)
            candidates = () if bare else turn.candidates
            found += self._of_turn(prepared, turn, candidates, start=start, end=end)
        return Segments(tuple(found))

    def with_subset(self, prepared: Prepared, whole: Segments, left: Collection[int]) -> Segments:
        """The request's segments `whole`, with only these of the answer's adapters, by number, in
        the turn that is answered."""
        asked = keep(prepared, left)
        cut = len(prepared.prompt.ids) - len(prepared.prompt.parts[-1])
        before = [
            replace(one, end=min(one.end, cut))
            for start, one in zip((0, *(one.end for one in whole.all)), whole.all, strict=False)
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
        """The segments of one turn; the last turn is cut where weights are fixed later."""
        request, found = prepared.request, []
        given = len(prepared.prompt.ids) + len(request.prefix_ids)
        switches = read_switches(request, candidates, self._layout, given=given)
        spans = [(turn.request, start, end)]
        answered = end > len(prepared.prompt.ids)
        if answered and request.later_weights and candidates:
            cut = max(start, given - 1)
            later = weighed(turn.request, request.later_weights, candidates)
            spans = [(turn.request, start, cut), (later, cut, end)]
        for asked, begin, over in spans:
            found += self._switched(
                asked, candidates, switches, start=begin, end=over, ephemeral=ephemeral
            )
        return found

    def _switched(
        self,
        asked: Request,
        candidates: Sequence[Candidate],
        switches: Sequence[tuple[int, Tensor]],
        *,
        start: int,
        end: int,
        ephemeral: bool,
    ) -> list[Segment]:
        """One segment, and one more from each position where something is switched off."""
        found, off = [], None
        for at, more in [*switches, (end, None)]:
            if start < min(at, end):
                placement = self.place(asked, candidates, off, ephemeral=ephemeral)
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
        ephemeral: bool = False,
    ) -> Placement:
        """Place the method's decision, `ephemeral` as in `Placer.prepare`; raises RamoleError for
        any fault."""
        try:
            return self._placer.prepare(request, candidates, off, ephemeral=ephemeral)
        except RamoleError:
            raise
        except Exception as error:
            raise fault_of(error, request.method) from error
