"""Prepare requests for an engine: the adapters of every turn, and the prompts.

The parts of a prompt that is answered part by part (`parts.py`) get their adapters at once, and are
prepared when the answer before them is there.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ramole_core.answer import Selection
from ramole_core.errors import RamoleError, did_you_mean
from ramole_core.hub import Hub, Wait
from ramole_core.mixes import Mixes
from ramole_core.pool import Pool
from ramole_core.request import Generation, Request
from ramole_core.selection.parts import Parts
from ramole_core.selection.selector import Choice, Selector, go_on
from ramole_core.turns import Source

if TYPE_CHECKING:
    from ramole_core.composition import Candidate, Response
    from ramole_core.engine.backend import Backend
    from ramole_core.engine.prompt import Prepared, Prompt


class Preparation:
    """Preparation over one pool."""

    def __init__(self, selector: Selector, parts: Parts, mixes: Mixes, hub: Hub, pool: Pool):
        self._selector, self._parts = selector, parts
        self._mixes, self._hub, self._pool = mixes, hub, pool

    def parts(self, request: Request) -> tuple[str, ...]:
        """As `Ramole.parts`."""
        return self._parts.of(request)

    def prepare(
        self,
        requests: Sequence[Request],
        engines: "Backend",
        *,
        cancelled: Callable[[], bool],
        source: Source,
    ) -> "list[Prepared]":
        """As `Ramole.prepare`, for these engines."""
        wait = self._hub.wait(cancelled)
        requests = [self._mixed(request, wait) for request in requests]
        texts = []
        for n, request in enumerate(requests):
            go_on(n, wait)
            texts.append(self._parts.of(request))
            if len(texts[n]) > 1:  # later each has a share of it
                self._selector.check_length(request)
        rests = [len(parts) - 1 for parts in texts]
        shares = [
            one.max_new_tokens // len(parts) for one, parts in zip(requests, texts, strict=True)
        ]
        requests = [
            replace(one, prompt=parts[0], max_new_tokens=one.max_new_tokens - share * rest)
            for one, parts, share, rest in zip(requests, texts, shares, rests, strict=True)
        ]
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
            asked = (*self._earlier(asked[:-1], dropped), asked[-1])
            later = replace(asked[-1], max_new_tokens=shares[n])
            asked += tuple(replace(later, prompt=text) for text in texts[n][1:])
            turns += [(n, turn) for turn in asked]
            follows += [place > 0 for place in range(len(asked))]

        def examine(
            at: Sequence[int], candidates: "Sequence[Sequence[Candidate]]"
        ) -> "list[list[Response]]":
            asked = [turns[t] for t in at]
            prompts = [
                engines.read(turn) if requests[n].history or len(texts[n]) > 1 else prompt_of(n)
                for n, turn in asked
            ]
            return engines.examine(prompts, candidates, source=source, cancelled=cancelled)

        from ramole_core.engine.prompt import Turn

        chosen = self._selector.choose(
            [turn for _, turn in turns], examine, wait=wait, follows=follows
        )
        found: list[list[Choice]] = [[] for _ in requests]
        for (n, _), choice in zip(turns, chosen, strict=True):
            found[n].append(choice)
        prepared = []
        for n, (request, choices) in enumerate(zip(requests, found, strict=True)):
            at = len(choices) - len(texts[n])
            earlier, last, later = choices[:at], choices[at], choices[at + 1 :]
            one = engines.prepare(
                request.turn_by_base() if last.leaves else request,
                last.candidates,
                prompt_of(n),
                earlier=[Turn(before.turn, before.candidates) for before in earlier],
            )
            notes = tuple(note for choice in (*earlier, last) for note in choice.notes)
            selection = replace(one.selection, evidence=last.evidence, notes=notes)
            if later:
                others = tuple(_selection(choice) for choice in later)
                selection = replace(selection, text=request.prompt, later=others)
            turns_to_come = tuple(
                Turn(choice.turn, tuple(map(_held, choice.candidates))) for choice in later
            )
            prepared.append(replace(one, selection=selection, later=turns_to_come))
        return prepared

    def follow(self, prepared: "Prepared", answer: Generation, engines: "Backend") -> "Prepared":
        """Prepare a request's next part; it may have the tokens of one part, and those that earlier
        parts left.

        Raises RamoleError where the answers so far have filled the context.
        """
        (turn, *later), request = prepared.later, prepared.request
        named = tuple(one.name for one in prepared.candidates)
        kept = request.history[len(request.history) + 1 - len(prepared.turns) :]
        asked = replace(
            turn.request,
            history=(*kept, (request.prompt, answer.text, named)),
            max_new_tokens=turn.request.max_new_tokens + request.max_new_tokens - answer.new_tokens,
            drop_turns=request.drop_turns,
        )
        prompt = engines.read(asked)
        earlier = prepared.turns[len(prepared.turns) + 1 - len(prompt.parts) :]
        one = engines.prepare(asked, turn.candidates, prompt, earlier=earlier)
        selection, *others = prepared.selection.later
        return replace(one, selection=replace(selection, later=tuple(others)), later=tuple(later))

    def _earlier(self, turns: Sequence[Request], dropped: int) -> Iterator[Request]:
        """Earlier turns; one that was answered by a method's own adapters names none of the pool.
        Raises RamoleError where a turn has an adapter that is not there any more."""
        for number, turn in enumerate(turns, dropped + 1):
            if not (names := turn.adapters):
                yield turn
                continue
            there = {card.name for card in self._pool.cards(turn.owner)}
            gone = [n for n in names if n not in there and not self._is_of_hub(n)]
            if self._selector.names_own(turn, gone):
                turn, gone = replace(turn, adapters=None), []
            if gone:
                raise RamoleError(
                    f"Turn {number} of this conversation was answered by {gone[0][:80]!r}, which "
                    "is not in the pool now; bring it back (Undo on the page), or begin a new "
                    f"conversation.{did_you_mean(gone[0][:80], there)}"
                )
            yield turn

    def _is_of_hub(self, name: str) -> bool:
        return name.startswith("hf:") or self._hub.is_listed(name)

    def _mixed(self, request: Request, wait: Wait) -> Request:
        """The request with the mix that it names, if any."""
        if request.mix is None:
            return request
        mix = self._mixes.get(request.mix, request.owner)
        there = {card.name for card in self._pool.cards(request.owner)}
        self._hub.bring_named(mix.adapters, there=there, wait=wait)
        cards = {card.name: card for card in self._pool.cards(request.owner)}
        held = [cards[name] for name in mix.adapters if name in cards]
        return mix.request(request, {card.name: card.content for card in held})


def _held(candidate: "Candidate") -> "Candidate":
    """The candidate with its LoRAs read now, so that its adapter may be removed meanwhile."""
    loras = candidate.load()
    return replace(candidate, load=lambda: loras)


def _selection(choice: Choice) -> Selection:
    """The selection of a later part."""
    return Selection(
        tuple(one.name for one in choice.candidates),
        tuple(one.score for one in choice.candidates),
        choice.evidence,
        choice.notes,
        text=choice.turn.prompt,
    )
