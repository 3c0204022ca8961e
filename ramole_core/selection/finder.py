"""Find the candidate adapters of a turn."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from ramole_core.errors import RamoleError, removed_meanwhile
from ramole_core.methods import complete_options
from ramole_core.pool import AdapterCard, Pool
from ramole_core.request import Request
from ramole_core.retrieval import Hit, Retriever

if TYPE_CHECKING:
    from ramole_core.composition import Candidate, Composition, LoraSet, Trained


class Finder:
    """A finder over one pool; light to make, torch is imported on first use."""

    def __init__(
        self,
        pool: Pool,
        retriever: Retriever,
        *,
        weights: "Callable[[Composition], Trained | None]",
    ):
        """`weights` gives a method's trained weights."""
        self._pool, self._retriever, self._weights = pool, retriever, weights

    def abstains(self, turn: Request, method: "Composition") -> bool:
        """Whether the base may answer where nothing fits; raises RamoleError where a fixed pool is
        asked to."""
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
        cards = {c.content: c for c in self._pool.cards(request.owner) if c.key in visible}
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
                return [(card, float("nan")) for card in cards]
            return self._nearest(request.prompt, cards, count)
        hits = self.hits(request, method)
        return [(self._pool.card(hit.name, hit.owner), hit.score) for hit in hits]

    def chosen(self, request: Request, method: "Composition") -> "list[Candidate]":
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
        try:
            return self._pool.tensors(card).loras
        except RamoleError as error:
            if any(one.content == card.content for one in self._pool.all_cards()):
                raise
            raise removed_meanwhile(card.name) from error
