"""Find the candidate adapters of a turn.

Listed adapters of the Hub are fetched into the pool first: those that the turn names; and of those
that are nearer than the pool's, as many as it takes, but none where the base answers the text in
any case.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from ramole_core.errors import RamoleError, removed_meanwhile
from ramole_core.hub import Hub, Wait
from ramole_core.methods import complete_options
from ramole_core.pool import AdapterCard, Pool
from ramole_core.request import Request
from ramole_core.retrieval import BaseExpert, Hit, Retriever

if TYPE_CHECKING:
    from ramole_core.composition import Candidate, Composition, LoraSet, Trained
    from ramole_core.hub import Listed


NAN = float("nan")
FetchedTurn = tuple[Request, tuple[str, ...]]
"""The turn with names of the pool, and a sentence for each adapter that was fetched, or not."""


class Finder:
    """A finder over one pool; light to make, torch is imported on first use."""

    def __init__(
        self,
        pool: Pool,
        retriever: Retriever,
        *,
        hub: Hub,
        base: BaseExpert,
        weights: "Callable[[Composition], Trained | None]",
    ):
        """`base` decides where the base answers, `weights` gives a method's trained weights."""
        self.pool, self.hub = pool, hub
        self._retriever, self._base, self._weights = retriever, base, weights

    def names(self, owner: str | None) -> set[str]:
        """The names of the pool's adapters that the owner sees."""
        return {card.name for card in self.pool.cards(owner)}

    def fetch_named(self, turn: Request, wait: Wait) -> FetchedTurn:
        """Fetch the adapters that the turn names; raises RamoleError where a listed one does not
        come."""
        names = turn.adapters or ()
        if not self.hub.allowed or not any(map(self.hub.is_listed, names)):
            return turn, ()
        there = self.names(turn.owner)
        said = self.hub.bring_named(names, there=there, wait=wait)
        here = [name if name in there else self.hub.name_in_pool(name) for name in names]
        return replace(turn, adapters=list(dict.fromkeys(here))), said

    def fetch_nearest(self, turn: Request, method: "Composition", wait: Wait) -> FetchedTurn:
        """Fetch those that are among the nearest to the turn's text, as many as the method takes;
        none where it has a fixed pool."""
        count = method.experts(turn.k)
        if not count or self.fixed_pool(method) is not None:
            return turn, ()
        near = self.hub.near(turn.prompt, count + self.hub.spare, turn.exclude)
        if self.hub.allowed and turn.exclude:  # as the pool names them; listed ones are not there
            there = self.names(turn.owner)
            names = [n if n in there else self.hub.name_in_pool(n) for n in turn.exclude]
            left = [n for n in names if n in there or not self.hub.is_listed(n)]
            turn = replace(turn, exclude=left)
        if not near:
            return turn, ()
        hits: list[Hit] = []
        if self.names(turn.owner) - {*turn.exclude}:
            hits = self._retriever.retrieve(turn.prompt, count, turn.exclude, turn.owner)
        if self.abstains(turn, method) and not self._answered(turn, near[0], hits):
            return turn, ()
        return turn, self.hub.bring_nearer(near, hits, count, wait)

    def _answered(self, turn: Request, near: "tuple[Listed, float]", hits: Sequence[Hit]) -> bool:
        """Whether adapters answer, or may, by similarity alone."""
        every = sorted([Hit(near[0].name, near[1]), *hits], key=lambda hit: -hit.score)
        evidence = self._base.judge(turn.prompt, every)
        return evidence.decision == "adapters" or self._base.doubts(evidence)

    def abstains(self, turn: Request, method: "Composition") -> bool:
        """Whether the base may answer where nothing fits; raises RamoleError for a fixed pool."""
        if turn.adapters is not None or not method.experts(turn.k):
            return False
        if self.fixed_pool(method) is not None:
            if turn.abstain:
                raise RamoleError(
                    f"abstain=True, but method {turn.method} has a fixed pool and finds no "
                    "adapters; leave it out, or choose another method."
                )
            return False
        return method.row.abstains if turn.abstain is None else turn.abstain

    def needs_vector(self, request: Request, method: "Composition") -> bool:
        if request.adapters is None:
            known = self.fixed_pool(method)
            count = method.experts(request.k)
            return count > 0 and (known is None or method.experts(len(known)) < len(known))
        weighs = method.weighs_similarity and request.weights is None
        return weighs or 0 < method.experts(len(request.adapters)) < len(request.adapters)

    def _fixed(self, request: Request, known: Mapping[str, str]) -> list[AdapterCard]:
        """The adapters of a fixed pool, by content, that the request does not exclude."""
        visible = self._retriever.visible(request.k, request.exclude, request.owner)
        cards = {c.content: c for c in self.pool.cards(request.owner) if c.key in visible}
        gone = [name for content, name in known.items() if content not in cards]
        if left := [cards[content] for content in known if content in cards]:
            return left
        raise RamoleError(
            f"Method {request.method} knows {', '.join(gone)}, and none of them is in the pool or "
            "left by exclude; leave one in, or choose another method."
        )

    def fixed_pool(self, method: "Composition") -> Mapping[str, str] | None:
        """The fixed pool of a method that has one."""
        return method.pool(self._weights(method)) if method.row.weights else None

    def brought(self) -> set[str]:
        """The names of adapters that methods bring themselves, which the pool does not have."""
        from ramole_core.composition import METHODS

        found: set[str] = set()
        for method in METHODS.values():
            if method.brings:
                with suppress(RamoleError):  # its weights are of another base
                    found |= {one.name for one in method.bring((), self._weights(method))}
        return found

    def found(self, request: Request, method: "Composition") -> list[tuple[AdapterCard, float]]:
        """The request's adapters, or the candidates where the method examines."""
        if request.adapters is not None:
            return self._named(request, method)
        count = method.experts(request.k)
        if not count:
            return []
        if (known := self.fixed_pool(method)) is not None:
            cards = self._fixed(request, known)
            count = method.experts(len(cards))
            if count == len(cards):
                return [(card, NAN) for card in cards]
            return self._nearest(request.prompt, cards, count)
        hits = self.hits(request, method)
        return [(self.pool.card(hit.name, hit.owner), hit.score) for hit in hits]

    def chosen(self, request: Request, method: "Composition") -> "list[Candidate]":
        """The adapters that the method chooses: those that are named in their order, others the
        largest share first."""
        from ramole_core.composition import VisibleAdapter

        named = [self.pool.card(name, request.owner).key for name in request.adapters or ()]
        exclude = () if named else tuple(request.exclude)
        if not named:  # refuses what cannot be asked, in the words of retrieval
            self._retriever.retrieve(request.prompt, request.k, exclude, request.owner)
        cards = self.pool.cards(request.owner)
        scores = self._retriever.similarities(request.prompt, cards)
        known = [
            VisibleAdapter(
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

    def hits(self, request: Request, method: "Composition") -> list[Hit]:
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
        cards = [self.pool.card(name, request.owner) for name in names]
        if not count:
            raise RamoleError(
                f"Method {request.method} mixes no adapters, but {', '.join(names)} were named; "
                "take them out, or choose another method."
            )
        if count >= len(cards):
            if not method.weighs_similarity or request.weights is not None:
                return [(card, NAN) for card in cards]
            scores = self._retriever.similarities(request.prompt, cards)
            if method.examines:  # as where they are found: by their responses
                scores = [NAN if c.blind else s for c, s in zip(cards, scores, strict=True)]
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

    def candidate(self, card: AdapterCard, score: float = NAN, share: float = NAN) -> "Candidate":
        """The card's adapter as an engine takes it; its tensors are read when they are needed."""
        from ramole_core.composition import Candidate

        return Candidate(card.name, score, card.content, lambda: self._loras(card), share=share)

    def _loras(self, card: AdapterCard) -> "LoraSet":
        try:
            return self.pool.tensors(card).loras
        except RamoleError as error:
            if any(one.content == card.content for one in self.pool.all_cards()):
                raise
            raise removed_meanwhile(card.name) from error
