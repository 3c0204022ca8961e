"""Adapters that are left out of the turn that is answered, as though they had not been found.

The method decides about the others as it was going to about all: their similarities and what they
answered to the prompt stay. Where none is left the base alone reads the whole conversation.
"""

from collections.abc import Collection
from dataclasses import replace

from ramole_core.composition import find_method
from ramole_core.engine.prompt import Prepared, Turn
from ramole_core.request_parts import TURN, read_without


def leave_out(prepared: Prepared) -> Prepared:
    """The request without what its `without` leaves out of its turn."""
    request, turn = prepared.request, prepared.turns[-1]
    every = read_without(request.without)
    gone = {one.adapter for one in every if one.start == TURN}
    if not gone:
        return prepared
    method, count = find_method(turn.request.method), len(turn.candidates)
    mixed = turn.candidates[: count if method.brings else method.experts(count)]
    left = [n for n, one in enumerate(mixed) if not gone & {None, one.name}]
    others = [one for one in every if one.start != TURN]
    return keep(replace(prepared, request=replace(request, without=others)), left)


def keep(prepared: Prepared, left: Collection[int]) -> Prepared:
    """The request with only these of the adapters of the turn that is answered, by number."""
    *earlier, turn = prepared.turns
    request, asked = prepared.request, turn.request
    if not left:
        bare = prepared.bare()
        return replace(bare, request=replace(bare.request, effects=request.effects))
    if find_method(asked.method).brings:  # it takes all that it knows, or nothing
        start = len(prepared.prompt.ids) - len(prepared.prompt.parts[-1])
        off = [
            (one.name, None, None, start) for n, one in enumerate(turn.candidates) if n not in left
        ]
        return replace(prepared, request=replace(request, without=(*request.without, *off)))
    kept = tuple(one for n, one in enumerate(turn.candidates) if n in left)
    if asked.weights is not None:
        weights = [weight for n, weight in enumerate(asked.weights) if n in left]
        asked = replace(asked, adapters=[one.name for one in kept], weights=weights)
    return replace(prepared, turns=(*earlier, Turn(asked, kept)))
