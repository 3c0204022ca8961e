"""Select a request's adapters: those it names, those of its method, or those that are found.

A method that examines has the nearest adapters examined on the prompt before it takes its k
(`engine/prompt_reader.py`). Where none that was found fits, the base may answer, and a message that
names no task may keep the adapters of the turn before (`retrieval/base_expert.py`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ramole_core.errors import Cancelled, RamoleError
from ramole_core.evidence import Evidence
from ramole_core.hub import Wait
from ramole_core.methods import METHOD_LIST, complete_options, find_row
from ramole_core.request import Request
from ramole_core.retrieval import BaseExpert, Hit, Retriever
from ramole_core.selection.finder import Finder

if TYPE_CHECKING:
    from ramole_core.composition import Candidate, Composition, Response


Examine = Callable[[Sequence[int], Sequence[Sequence["Candidate"]]], "Sequence[Sequence[Response]]"]
"""Return each candidate's response to the prompts of these requests, by index."""

BATCH_SIZE = 8
"""Prompts that are embedded in one call, and examined in one; between two, all may be cancelled."""


@dataclass(frozen=True)
class Choice:
    """The adapters chosen for a turn, or the base."""

    turn: Request
    """The turn as it is placed: of the method `base` where the base answers."""
    candidates: "tuple[Candidate, ...]"
    """Its adapters; none where the base answers."""
    evidence: Evidence | None = None
    """None where nothing was weighed: adapters named, or a method that always mixes."""
    notes: tuple[str, ...] = ()
    """A sentence for each adapter that came from the Hub, or did not."""

    @property
    def kept(self) -> bool:
        """Whether the adapters are those of the turn before."""
        return self.evidence is not None and self.evidence.decision == "kept"

    @property
    def leaves(self) -> bool:
        """Whether the base answers, as far as is known."""
        return self.evidence is not None and self.evidence.decision == "base"

    def by_base(self) -> "Choice":
        """Choose the base alone."""
        return Choice(self.turn.turn_by_base(), (), self.evidence, self.notes)


def by_depth(follows: Sequence[bool]) -> list[list[int]]:
    """Group turns by their place in their conversation."""
    parts: list[list[int]] = []
    depth = 0
    for n, after in enumerate(follows):
        depth = depth + 1 if after else 0
        parts += [[]] * (depth == len(parts))
        parts[depth] = [*parts[depth], n]
    return parts


class Selector:
    """The selector of adapters; light to make, torch is imported on first use."""

    def __init__(
        self, finder: Finder, retriever: Retriever, *, base: BaseExpert, max_new_tokens: int
    ):
        """`base` decides where the base answers; `max_new_tokens`: the most that this server gives
        to one request."""
        self._finder, self._retriever, self._base = finder, retriever, base
        self._pool, self._hub = finder.pool, finder.hub
        self._max_new_tokens = max_new_tokens

    def names_own(self, turn: Request, gone: Sequence[str]) -> bool:
        """Whether an earlier turn was answered by adapters that a method brings itself; `gone` are
        those of its names that the pool does not have."""
        from ramole_core.composition import find_method

        if find_method(turn.method).brings:
            return True
        return bool(gone) and self._finder.brought().issuperset(turn.adapters or ())

    def choose(
        self,
        turns: Sequence[Request],
        examine: Examine,
        *,
        wait: Wait,
        follows: Sequence[bool],
    ) -> list[Choice]:
        """Choose what answers each turn: its adapters, best first where retrieved, as ordered where
        named, or the base where none found fits.

        `wait`: for adapters of the Hub, all turns together. `follows[n]`: turn n comes after turn
        n - 1 in one conversation. Prompts are embedded first. Raises RamoleError for an unknown
        method, option or adapter, and where the method cannot use those that were named, before any
        is examined; Cancelled where the caller no longer waits.
        """
        from ramole_core.composition import find_method

        methods = [find_method(turn.method) for turn in turns]
        for turn, then in zip(turns, [*follows[1:], False], strict=True):
            self._check(turn, answered=then and bool(turn.adapters))
        found: list[Choice] = []
        for start in range(0, len(turns), BATCH_SIZE):
            go_on(start, wait)
            pairs = list(zip(turns, methods, strict=True))[start : start + BATCH_SIZE]
            if asking := [
                turn.prompt for turn, method in pairs if self._finder.needs_vector(turn, method)
            ]:
                self._retriever.vectors(asking)
            found += [self._arrive(*pair, wait) for pair in pairs]
        for part in by_depth(follows):
            for n in part:
                if follows[n]:
                    found[n] = self._keep(found[n], found[n - 1])
            for start in range(0, len(part), BATCH_SIZE):
                go_on(start, wait)
                self._examine(part[start : start + BATCH_SIZE], found, methods, examine)
        self._hub.used([one.name for choice in found for one in choice.candidates])
        return found

    def _arrive(self, turn: Request, method: "Composition", wait: Wait) -> "Choice":
        """Choose, after fetching adapters of the Hub."""
        if turn.adapters is not None:
            turn, notes = self._finder.fetch_named(turn, wait)
        else:
            turn, notes = self._finder.fetch_nearest(turn, method, wait)
        return replace(self._choose(turn, method), notes=notes)

    def _choose(self, turn: Request, method: "Composition") -> Choice:
        """Choose before examining, regardless of the turn before."""
        evidence, hits = None, None
        if self._finder.abstains(turn, method):
            if not self._pool.cards(turn.owner):
                return Choice(turn.turn_by_base(), (), Evidence("base"))
            hits = self._finder.hits(turn, method)
            known = [hit for hit in hits if hit.score == hit.score]
            evidence = self._base.judge(turn.prompt, known, blind=len(hits) - len(known))
        if method.chooses and turn.weights is None:
            found = self._finder.chosen(turn, method)
        elif hits is not None:
            found = [
                self._finder.candidate(self._pool.card(hit.name, hit.owner), hit.score)
                for hit in hits
            ]
        else:
            found = [self._finder.candidate(*one) for one in self._finder.found(turn, method)]
        return Choice(turn, tuple(found), evidence)

    def _keep(self, choice: Choice, before: Choice) -> Choice:
        """Keep the adapters of the turn before where this one continues it."""
        turn = choice.turn
        kept = [one for one in before.candidates if one.name not in turn.exclude]
        keeps = find_row(turn.method).keeps_turn and turn.adapters is None
        if not (keeps and choice.candidates and kept and kept[0] is before.candidates[0]):
            return choice
        near, leader = choice.candidates[0], self._pool.card(kept[0].name, turn.owner)
        known = self._retriever.similarities(turn.prompt, [leader])[0]
        unknown = near.score != near.score
        evidence = self._base.goes_on(
            turn.prompt,
            None if unknown else Hit(near.name, near.score),
            Hit(leader.name, float("nan") if leader.blind else known),
        )
        return choice if evidence is None else Choice(turn, tuple(kept), evidence, choice.notes)

    def _examine(
        self,
        part: Sequence[int],
        found: list[Choice],
        methods: "Sequence[Composition]",
        examine: Examine,
    ) -> None:
        """Examine the adapters of these turns, and decide by their responses."""
        for n in part:
            if found[n].leaves and not (methods[n].examines and self._doubts(found[n])):
                found[n] = found[n].by_base()
        at = [n for n in part if methods[n].examines and found[n].candidates and not found[n].kept]
        if not at:
            return
        answers = examine(at, [found[n].candidates for n in at])
        for n, responses in zip(at, answers, strict=True):
            pairs = zip(found[n].candidates, responses, strict=True)
            examined = [replace(one, response=response) for one, response in pairs]
            evidence = found[n].evidence
            if evidence is not None and self._doubts(found[n]):
                known = [one.activation_z for one in examined if one.score == one.score]
                blind = {one.name: one.activation_z for one in examined if one.score != one.score}
                evidence = self._base.decide_by_activation(evidence, known, blind)
            best = self._best(found[n].turn, methods[n], examined)
            settled = Choice(found[n].turn, tuple(best), evidence, found[n].notes)
            found[n] = settled.by_base() if settled.leaves else settled

    def _doubts(self, choice: Choice) -> bool:
        return choice.evidence is not None and self._base.doubts(choice.evidence)

    def _best(
        self, request: Request, method: "Composition", examined: "list[Candidate]"
    ) -> "list[Candidate]":
        if request.adapters is not None:
            return examined
        worth = method.rank(examined, complete_options(request.method, request.options))
        order = sorted(range(len(examined)), key=lambda j: -worth[j])
        return [examined[j] for j in order[: method.experts(request.k)]]

    def check(self, request: Request) -> None:
        """Raise RamoleError where the request cannot run, as far as is known without a model."""
        *_, last = turns = request.turns
        for turn in turns:
            self._check(turn, answered=turn is not last and bool(turn.adapters))
            known = self._finder.names(turn.owner)
            gone = [
                name
                for name in turn.adapters or ()
                if name not in known and not self._hub.is_listed(name)
            ]
            if gone and not (turn is not last and self.names_own(turn, gone)):
                self._pool.card(gone[0], turn.owner)

    def _check(self, request: Request, *, answered: bool) -> None:
        """`answered`: it is an earlier turn, whose adapters are known."""
        row = find_row(request.method)
        complete_options(request.method, request.options)
        if row.fits and not answered and not request.examples and request.weights is None:
            raise RamoleError(
                f"Method {request.method} finds its weights on examples, and none came; pass about "
                "5 (input, target) pairs as examples, or weights of your own."
            )
        if request.examples and not row.fits:
            fitting = ", ".join(row.name for row in METHOD_LIST if row.fits)
            raise RamoleError(
                f"examples came, but method {request.method} has no use for them; leave them out, "
                f"or choose {fitting}."
            )
        self.check_length(request)

    def check_length(self, request: Request) -> None:
        """Raise RamoleError where more tokens are requested than the server gives."""
        if request.max_new_tokens > self._max_new_tokens:
            raise RamoleError(
                f"max_new_tokens={request.max_new_tokens}, but this server gives at most "
                f"{self._max_new_tokens}; ask for fewer, or raise RAMOLE_MAX_NEW_TOKENS."
            )


def go_on(done: int, wait: Wait) -> None:
    """Raise Cancelled after the first of many where the caller no longer waits."""
    if done and wait.ended():
        raise Cancelled("Nobody waits for the answers any more; their adapters are not looked up.")
