"""From requests to what an engine takes: the adapters of every turn, and the prompts."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ramole_core.hub import Hub, Wait
from ramole_core.mixes import Mixes
from ramole_core.pool import Pool
from ramole_core.request import Request
from ramole_core.selection.selector import Choice, Selector

if TYPE_CHECKING:
    from ramole_core.composition import Candidate, Response
    from ramole_core.engine.backend import Backend
    from ramole_core.engine.prompt import Prepared, Prompt


class Preparation:
    """Over one pool."""

    def __init__(self, selector: Selector, mixes: Mixes, hub: Hub, pool: Pool):
        self._selector, self._mixes, self._hub, self._pool = selector, mixes, hub, pool

    def prepare(
        self, requests: Sequence[Request], engines: "Backend", *, cancelled: Callable[[], bool]
    ) -> "list[Prepared]":
        """As `Ramole.prepare`, for these engines."""
        wait = self._hub.wait(cancelled)
        requests = [self._mixed(request, wait) for request in requests]
        read: dict[int, Prompt] = {}

        def prompt_of(n: int) -> "Prompt":
            if n not in read:
                read[n] = engines.read(requests[n])
            return read[n]

        turns: list[tuple[int, Request]] = []  # of all requests, each with its request's index
        follows: list[bool] = []
        for n, request in enumerate(requests):
            dropped = prompt_of(n).dropped if request.drop_turns and request.history else 0
            asked = request.turns[dropped:]
            turns += [(n, turn) for turn in asked]
            follows += [place > 0 for place in range(len(asked))]

        def examine(
            at: Sequence[int], candidates: "Sequence[Sequence[Candidate]]"
        ) -> "list[list[Response]]":
            asked = [turns[t] for t in at]
            prompts = [
                engines.read(turn) if requests[n].history else prompt_of(n) for n, turn in asked
            ]
            return engines.examine(prompts, candidates)

        from ramole_core.engine.prompt import Turn

        chosen = self._selector.choose(
            [turn for _, turn in turns], examine, wait=wait, follows=follows
        )
        found: list[list[Choice]] = [[] for _ in requests]
        for (n, _), choice in zip(turns, chosen, strict=True):
            found[n].append(choice)
        prepared = []
        for n, (request, (*earlier, last)) in enumerate(zip(requests, found, strict=True)):
            one = engines.prepare(
                request.turn_by_base() if last.leaves else request,
                last.candidates,
                prompt_of(n),
                earlier=[Turn(before.turn, before.candidates) for before in earlier],
            )
            notes = tuple(note for choice in (*earlier, last) for note in choice.notes)
            selection = replace(one.selection, evidence=last.evidence, notes=notes)
            prepared.append(replace(one, selection=selection))
        return prepared

    def _mixed(self, request: Request, wait: Wait) -> Request:
        """The request with what its mix says, where it names one."""
        if request.mix is None:
            return request
        mix = self._mixes.get(request.mix, request.owner)
        there = {card.name for card in self._pool.cards(request.owner)}
        self._hub.bring_named(mix.adapters, there=there, wait=wait)
        cards = {card.name: card for card in self._pool.cards(request.owner)}
        held = [cards[name] for name in mix.adapters if name in cards]
        return mix.request(request, {card.name: card.content for card in held})
