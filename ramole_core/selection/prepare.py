"""Prepare requests for an engine: the adapters of every turn, and the prompts.

The parts of a prompt that is answered part by part (`parts.py`) get their adapters at once, and are
prepared when the answer before them is there.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

from ramole_core.answer import Selection
from ramole_core.errors import RamoleError, did_you_mean
from ramole_core.hub import Wait
from ramole_core.mixes import Mixes
from ramole_core.request import Generation, Request
from ramole_core.selection.finder import Finder
from ramole_core.selection.parts import Parts
from ramole_core.selection.selector import Choice, Selector, go_on
from ramole_core.turns import Source

if TYPE_CHECKING:
    from ramole_core.composition import Candidate, Response
    from ramole_core.engine.backend import Backend
    from ramole_core.engine.prompt import Prepared, Prompt


class _Preparing:
    """A request in preparation: its first part, with its share of the tokens, and the others."""

    def __init__(self, request: Request, parts: Sequence[str], engines: "Backend"):
        first, *self.later = parts
        self._share = request.max_new_tokens // len(parts)
        tokens = request.max_new_tokens - self._share * len(self.later)
        self.request = replace(request, prompt=first, max_new_tokens=tokens)
        self._engines = engines

    @cached_property
    def prompt(self) -> "Prompt":
        return self._engines.read(self.request)

    def prompt_of(self, turn: Request) -> "Prompt":
        """The prompt of one of its turns alone."""
        one = not (self.request.history or self.later)
        return self.prompt if one else self._engines.read(turn)

    @property
    def dropped(self) -> int:
        """Number of its oldest turns that do not fit."""
        return self.prompt.dropped if self.request.drop_turns and self.request.history else 0

    def later_turns(self, last: Request) -> list[Request]:
        """Its later parts as turns behind the `last` one."""
        return [replace(last, max_new_tokens=self._share, prompt=text) for text in self.later]

    def prepared(self, choices: Sequence[Choice]) -> "Prepared":
        """The first part, of the choices for its earlier turns, for it, and for the later parts."""
        from ramole_core.engine.prompt import Turn

        at = len(choices) - 1 - len(self.later)
        last, later = choices[at], choices[at + 1 :]
        one = self._engines.prepare(
            self.request.turn_by_base() if last.leaves else self.request,
            last.candidates,
            self.prompt,
            earlier=[Turn(before.turn, before.candidates) for before in choices[:at]],
        )
        notes = tuple(note for choice in choices[: at + 1] for note in choice.notes)
        selection = replace(one.selection, evidence=last.evidence, notes=notes)
        if later:
            others = tuple(_selection(choice) for choice in later)
            selection = replace(selection, text=self.request.prompt, later=others)
        to_come = (Turn(choice.turn, tuple(map(_held, choice.candidates))) for choice in later)
        return replace(one, selection=selection, later=tuple(to_come))


class Preparation:
    """Preparation over one pool."""

    def __init__(self, selector: Selector, finder: Finder, parts: Parts, mixes: Mixes):
        self._selector, self._finder, self._parts, self._mixes = selector, finder, parts, mixes
        self._hub, self._pool = finder.hub, finder.pool

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
        every: list[_Preparing] = []
        for n, request in enumerate([self._mixed(request, wait) for request in requests]):
            go_on(n, wait)
            parts = self._parts.of(request)
            if len(parts) > 1:  # later each has a share of it
                self._selector.check_length(request)
            every.append(_Preparing(request, parts, engines))
        turns: list[tuple[int, Request]] = []  # of all requests, each with its request's index
        follows: list[bool] = []
        for n, one in enumerate(every):
            *before, last = one.request.turns[one.dropped :]
            talk = [*self._earlier(before, one.dropped), last, *one.later_turns(last)]
            turns += [(n, turn) for turn in talk]
            follows += [place > 0 for place in range(len(talk))]

        def examine(
            at: Sequence[int], candidates: "Sequence[Sequence[Candidate]]"
        ) -> "list[list[Response]]":
            prompts = [every[n].prompt_of(turn) for n, turn in (turns[t] for t in at)]
            return engines.examine(prompts, candidates, source=source, cancelled=cancelled)

        chosen = self._selector.choose(
            [turn for _, turn in turns], examine, wait=wait, follows=follows
        )
        found: list[list[Choice]] = [[] for _ in every]
        for (n, _), choice in zip(turns, chosen, strict=True):
            found[n].append(choice)
        return [one.prepared(choices) for one, choices in zip(every, found, strict=True)]

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
            there = self._finder.names(turn.owner)
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
        there = self._finder.names(request.owner)
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
