"""Which adapters a request gets: those it names, those its method knows or chooses among all, or
those that are found.

A method that examines has the nearest adapters answer to the prompt before it takes its k
(`ramole_core.engine.reference`). Where none that was found fits, the base may answer, and a message
that names no task may keep the adapters of the turn before (`retrieval/base_expert.py`). Adapters
of the Hub come into the pool before it is asked (`arriving.py`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ramole_core.arriving import Arriving
from ramole_core.errors import RamoleError
from ramole_core.evidence import Evidence
from ramole_core.hub import Wait
from ramole_core.methods import METHOD_LIST, complete_options, find_row
from ramole_core.pool import AdapterCard, Pool
from ramole_core.request import Request
from ramole_core.retrieval import BaseExpert, Hit, Retriever

if TYPE_CHECKING:
    from ramole_core.composition import Candidate, Composition, LoraSet, Response, Trained


Examine = Callable[[Sequence[int], Sequence[Sequence["Candidate"]]], "Sequence[Sequence[Response]]"]
"""What each candidate answers to the prompts of these requests, by index."""

AT_ONCE = 256
"""Prompts that are embedded in one call; no more than the encoder remembers."""


@dataclass(frozen=True)
class Choice:
    """Who answers a turn."""

    turn: Request
    """As it is placed: of the method `base` where the base answers."""
    candidates: "tuple[Candidate, ...]"
    """Its adapters; none where the base answers."""
    evidence: Evidence | None = None
    """None where nothing was weighed: adapters named, or a method that always mixes."""
    notes: tuple[str, ...] = ()
    """What came of adapters of the Hub."""

    @property
    def kept(self) -> bool:
        """Whether the adapters are those of the turn before."""
        return self.evidence is not None and self.evidence.decision == "kept"

    @property
    def leaves(self) -> bool:
        """Whether the adapters leave it to the base, as far as is known."""
        return self.evidence is not None and self.evidence.decision == "base"

    def by_base(self) -> "Choice":
        """The base answers it alone."""
        return Choice(base_turn(self.turn), (), self.evidence, self.notes)


def base_turn(turn: Request) -> Request:
    """The turn as the method `base` gets it."""
    return replace(turn, method="base", options=None, abstain=None, exclude=(), examples=())


def by_depth(follows: Sequence[bool]) -> list[list[int]]:
    """The turns that begin a conversation, then those that come second in one, and so on."""
    parts: list[list[int]] = []
    depth = 0
    for n, after in enumerate(follows):
        depth = depth + 1 if after else 0
        parts += [[]] * (depth == len(parts))
        parts[depth] = [*parts[depth], n]
    return parts


class AdapterChoice:
    """Turns requests into their adapters; light to make, torch is imported on first use."""

    def __init__(
        self,
        pool: Pool,
        retriever: Retriever,
        *,
        base: BaseExpert,
        max_new_tokens: int,
        weights: "Callable[[Composition], Trained | None]",
        arriving: Arriving,
    ):
        """`base` says where the base answers; `max_new_tokens`: the most that this server gives to
        one request; `weights` gives a method's trained weights; `arriving` brings adapters of the
        Hub."""
        self._arriving = arriving
        self._pool, self._retriever, self._base, self._weights = pool, retriever, base, weights
        self._max_new_tokens = max_new_tokens

    def choose(
        self,
        turns: Sequence[Request],
        examine: Examine,
        *,
        wait: Wait,
        follows: Sequence[bool] = (),
    ) -> list[Choice]:
        """Who answers each turn: its adapters, best first where retrieved, in the given order where
        named, or the base where none that was found fits.

        `wait`: for adapters of the Hub, all turns together. `follows[n]`: turn n comes after turn
        n - 1 in one conversation. Prompts are embedded first. Raises RamoleError for an unknown
        method, option or adapter, and where the method cannot use those that were named, before any
        is examined.
        """
        from ramole_core.composition import find_method

        methods = [find_method(turn.method) for turn in turns]
        for turn, method in zip(turns, methods, strict=True):
            self._check(turn, method)
        found: list[Choice] = []
        for start in range(0, len(turns), AT_ONCE):
            pairs = list(zip(turns, methods, strict=True))[start : start + AT_ONCE]
            if asking := [
                turn.prompt for turn, method in pairs if self._needs_vector(turn, method)
            ]:
                self._retriever.remember(asking)
            found += [self._arrive(*pair, wait) for pair in pairs]
        for part in by_depth(follows or [False] * len(turns)):
            for n in part:
                if follows and follows[n]:
                    found[n] = self._keep(found[n], found[n - 1])
            self._examine(part, found, methods, examine)
        self._arriving.used([one.name for choice in found for one in choice.candidates])
        return found

    def _arrive(self, turn: Request, method: "Composition", wait: Wait) -> "Choice":
        """Who answers, once the adapters of the Hub that should have come."""
        notes: tuple[str, ...] = ()
        if turn.adapters is not None:
            turn, notes = self._arriving.named(turn, wait)
        elif (count := method.experts(turn.k)) and self._known(method) is None:
            abstains = self._abstains(turn, method)
            turn, notes = self._arriving.nearest(turn, count, wait, abstains=abstains)
        return replace(self._look(turn, method), notes=notes)

    def _look(self, turn: Request, method: "Composition") -> Choice:
        """Who answers, before any adapter was examined and but for the turn before."""
        evidence, hits = None, None
        if self._abstains(turn, method):
            if not self._pool.cards(turn.owner):
                return Choice(base_turn(turn), (), Evidence("base"))
            hits = self._hits(turn, method)
            known = [hit for hit in hits if hit.score == hit.score]
            evidence = self._base.judge(turn.prompt, known, blind=len(hits) - len(known))
        if method.chooses and turn.weights is None:
            found = self._chosen(turn, method)
        elif hits is not None:
            found = [
                self.candidate(self._pool.card(hit.name, hit.owner), hit.score) for hit in hits
            ]
        else:
            found = [self.candidate(*one) for one in self._found(turn, method)]
        return Choice(turn, tuple(found), evidence)

    def _keep(self, choice: Choice, before: Choice) -> Choice:
        """The adapters of the turn before where this one goes on with them."""
        turn = choice.turn
        kept = [one for one in before.candidates if one.name not in turn.exclude]
        keeps = find_row(turn.method).keeps_turn and turn.adapters is None
        if not (keeps and choice.candidates and kept and kept[0] is before.candidates[0]):
            return choice
        near, leader = choice.candidates[0], self._pool.card(kept[0].name, turn.owner)
        known = self._retriever.similarities(turn.prompt, [leader])[0]
        nobody = near.score != near.score
        evidence = self._base.goes_on(
            turn.prompt,
            None if nobody else Hit(near.name, near.score),
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
        """Put the adapters' responses into these turns' choices, and settle who answers."""
        for n in part:
            if found[n].leaves and not (methods[n].examines and self._doubts(found[n])):
                found[n] = found[n].by_base()
        at = [n for n in part if methods[n].examines and found[n].candidates and not found[n].kept]
        if not at:
            return
        answers = examine(at, [found[n].candidates for n in at])
        for n, responses in zip(at, answers, strict=True):
            pairs = zip(found[n].candidates, responses, strict=True)
            heard = [replace(one, response=response) for one, response in pairs]
            evidence = found[n].evidence
            if evidence is not None and self._doubts(found[n]):
                known = [one.surprise for one in heard if one.score == one.score]
                blind = {one.name: one.surprise for one in heard if one.score != one.score}
                evidence = self._base.hear(evidence, known, blind)
            best = self._best(found[n].turn, methods[n], heard)
            settled = Choice(found[n].turn, tuple(best), evidence, found[n].notes)
            found[n] = settled.by_base() if settled.leaves else settled

    def _doubts(self, choice: Choice) -> bool:
        return choice.evidence is not None and self._base.doubts(choice.evidence)

    def _abstains(self, turn: Request, method: "Composition") -> bool:
        """Whether the base may answer where nothing fits; raises RamoleError where a fixed pool is
        asked to."""
        if turn.adapters is not None or not method.experts(turn.k):
            return False
        if self._known(method) is not None:
            if turn.abstain:
                raise RamoleError(
                    f"abstain=True, but method {turn.method} has a fixed pool and finds no "
                    "adapters; leave it out, or choose another method."
                )
            return False
        return method.row.abstains if turn.abstain is None else turn.abstain

    def _best(
        self, request: Request, method: "Composition", heard: "list[Candidate]"
    ) -> "list[Candidate]":
        if request.adapters is not None:
            return heard
        worth = method.rank(heard, complete_options(request.method, request.options))
        order = sorted(range(len(heard)), key=lambda j: -worth[j])
        return [heard[j] for j in order[: method.experts(request.k)]]

    def _check(self, request: Request, method: "Composition") -> None:
        complete_options(request.method, request.options)
        if method.row.fits and not request.examples and request.weights is None:
            raise RamoleError(
                f"Method {request.method} finds its weights on examples, and none came; pass about "
                "5 (input, target) pairs as examples, or weights of your own."
            )
        if request.examples and not method.row.fits:
            fitting = ", ".join(row.name for row in METHOD_LIST if row.fits)
            raise RamoleError(
                f"examples came, but method {request.method} has no use for them; leave them out, "
                f"or choose {fitting}."
            )
        if request.max_new_tokens > self._max_new_tokens:
            raise RamoleError(
                f"max_new_tokens={request.max_new_tokens}, but this server gives at most "
                f"{self._max_new_tokens}; ask for fewer, or raise RAMOLE_MAX_NEW_TOKENS."
            )

    def _needs_vector(self, request: Request, method: "Composition") -> bool:
        if request.adapters is None:
            known = self._known(method)
            count = method.experts(request.k)
            return count > 0 and (known is None or method.experts(len(known)) < len(known))
        weighs = method.weighs_similarity and request.weights is None
        return weighs or 0 < method.experts(len(request.adapters)) < len(request.adapters)

    def _fixed(self, request: Request, known: Mapping[str, str]) -> list[AdapterCard]:
        """The adapters of a fixed pool, by content, that the request does not exclude."""
        visible = self._retriever.visible(request.k, request.exclude, request.owner)
        cards = {c.content: c for c in self._pool.cards(request.owner) if c.key in visible}
        gone = [name for content, name in known.items() if content not in cards]
        if left := [cards[content] for content in known if content in cards]:
            return left
        raise RamoleError(
            f"Method {request.method} knows {', '.join(gone)}, and none of them is in the pool or "
            "left by exclude; leave one in, or choose another method."
        )

    def _known(self, method: "Composition") -> Mapping[str, str] | None:
        """The fixed pool of a method that has one."""
        return method.pool(self._weights(method)) if method.row.weights else None

    def _found(self, request: Request, method: "Composition") -> list[tuple[AdapterCard, float]]:
        """The request's adapters, or the candidates where the method examines."""
        if request.adapters is not None:
            return self._named(request, method)
        count = method.experts(request.k)
        if not count:
            return []
        if (known := self._known(method)) is not None:
            cards = self._fixed(request, known)
            count = method.experts(len(cards))
            if count == len(cards):
                return [(card, float("nan")) for card in cards]
            return self._nearest(request.prompt, cards, count)
        hits = self._hits(request, method)
        return [(self._pool.card(hit.name, hit.owner), hit.score) for hit in hits]

    def _chosen(self, request: Request, method: "Composition") -> "list[Candidate]":
        """The adapters that the method chooses: those that are named in their order, others the
        largest share first."""
        from ramole_core.composition import Known

        named = [self._pool.card(name, request.owner).key for name in request.adapters or ()]
        exclude = () if named else tuple(request.exclude)
        if not named:  # refuses what cannot be asked, in the words of retrieval
            self._retriever.retrieve(request.prompt, request.k, exclude, request.owner)
        cards = self._pool.cards(request.owner)
        scores = self._retriever.similarities(request.prompt, cards)
        known = [
            Known(
                card.name,
                card.content,
                score,
                open=card.key in named if named else card.name not in exclude,
                excluded=card.name in request.exclude,
            )
            for card, score in zip(cards, scores, strict=True)
        ]
        shares = method.choose(
            known,
            method.experts(len(named) or request.k),
            options=complete_options(request.method, request.options),
            trained=self._weights(method),
        )
        at = {card.key: n for n, card in enumerate(cards)}
        taken = [at[key] for key in named] or sorted(shares, key=lambda n: -shares[n])
        return [self.candidate(cards[n], scores[n], shares.get(n, 0.0)) for n in taken]

    def _hits(self, request: Request, method: "Composition") -> list[Hit]:
        """The nearest adapters, as many as the method takes; or those that it examines."""
        exclude, k = tuple(request.exclude), method.experts(request.k)
        if method.examines:
            most = max(k, method.examines)
            return self._retriever.candidates(
                request.prompt, count=most, exclude=exclude, owner=request.owner
            )
        return self._retriever.retrieve(request.prompt, k=k, exclude=exclude, owner=request.owner)

    def _named(self, request: Request, method: "Composition") -> list[tuple[AdapterCard, float]]:
        names = request.adapters or ()
        count = method.experts(len(names))
        cards = [self._pool.card(name, request.owner) for name in names]
        if not count:
            raise RamoleError(
                f"Method {request.method} mixes no adapters, but {', '.join(names)} were named; "
                "take them out, or choose another method."
            )
        if count >= len(cards):
            if not method.weighs_similarity or request.weights is not None:
                return [(card, float("nan")) for card in cards]
            scores = self._retriever.similarities(request.prompt, cards)
            if method.examines:  # as where they are found: by their responses
                nan = float("nan")
                scores = [nan if c.blind else s for c, s in zip(cards, scores, strict=True)]
            return list(zip(cards, scores, strict=True))
        if request.weights is not None:
            raise RamoleError(
                f"Method {request.method} uses {count} adapter, but weights were given for "
                f"{len(cards)}; take the weights out, or choose a method that mixes."
            )
        return self._nearest(request.prompt, cards, count)

    def _nearest(
        self, prompt: str, cards: list[AdapterCard], count: int
    ) -> list[tuple[AdapterCard, float]]:
        scores = self._retriever.similarities(prompt, cards)
        best = sorted(zip(cards, scores, strict=True), key=lambda pair: -pair[1])
        return best[:count]

    def candidate(
        self, card: AdapterCard, score: float = float("nan"), share: float = float("nan")
    ) -> "Candidate":
        """The card's adapter as an engine takes it; its tensors are read when they are needed."""
        from ramole_core.composition import Candidate

        return Candidate(card.name, score, card.content, lambda: self._loras(card), share=share)

    def _loras(self, card: AdapterCard) -> "LoraSet":
        from ramole_core.composition import Lora

        tensors = self._pool.tensors(card)
        return {path: Lora(A=A, B=B) for path, (A, B) in tensors.modules.items()}
