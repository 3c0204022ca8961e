"""Which adapters a request gets: those it names, or those that retrieval finds for it.

A method that examines gets the nearest adapters listened to before it takes its k: `examine` says
how surprising the response of each is to the prompt (`ramole_core.engine.reference`).
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ramole_core.engine.request import Request
from ramole_core.errors import RamoleError
from ramole_core.pool import AdapterCard, Pool
from ramole_core.retrieval import Retriever

if TYPE_CHECKING:
    from ramole_core.composition import Composition
    from ramole_core.engine.ticket import Chosen
    from ramole_core.layers import LoraSet


Examine = Callable[[Sequence[Request], Sequence[Sequence["Chosen"]]], list[list[float]]]
"""How surprising the response of each request's candidates is, in spreads."""


class Chooser:
    """Turns a request into its adapters; light to make, torch is imported on first use."""

    def __init__(self, pool: Pool, retriever: Retriever, *, max_new_tokens: int):
        """`max_new_tokens`: the most that this server gives to one request."""
        self._pool, self._retriever = pool, retriever
        self._max_new_tokens = max_new_tokens

    def choose_all(self, requests: Sequence[Request], examine: Examine) -> list[list["Chosen"]]:
        """The adapters of each request; raises as `choose` does, before any is examined."""
        from ramole_core.composition import find_method

        found = [self.choose(request) for request in requests]
        at = [n for n, one in enumerate(requests) if find_method(one.method).examines and found[n]]
        if not at:
            return found
        for n, surprises in zip(
            at, examine([requests[n] for n in at], [found[n] for n in at]), strict=True
        ):
            request, method = requests[n], find_method(requests[n].method)
            heard = [replace(c, surprise=z) for c, z in zip(found[n], surprises, strict=True)]
            if request.adapters is None:
                worth = method.rank([c.score for c in heard], surprises)
                order = sorted(range(len(heard)), key=lambda j: -worth[j])
                heard = [heard[j] for j in order[: method.experts(request.k)]]
            found[n] = heard
        return found

    def choose(self, request: Request) -> list["Chosen"]:
        """The request's adapters, best first where retrieved, in the given order where named; the
        candidates, where the method examines.

        Raises RamoleError for an unknown method or adapter, and where the method cannot use those
        that were named.
        """
        from ramole_core.composition import find_method

        method = find_method(request.method)
        if request.max_new_tokens > self._max_new_tokens:
            raise RamoleError(
                f"max_new_tokens={request.max_new_tokens}, but this server gives at most "
                f"{self._max_new_tokens}; ask for fewer, or raise RAMOLE_MAX_NEW_TOKENS."
            )
        if request.adapters is None:
            count = method.experts(request.k)
            found = self._retrieved(request, max(count, method.examines) if count else 0)
        else:
            found = self._named(request, method)
        return [self._chosen(card, score) for card, score in found]

    def _retrieved(self, request: Request, count: int) -> list[tuple[AdapterCard, float]]:
        if not count:
            return []
        hits = self._retriever.retrieve(
            request.prompt, k=count, exclude=tuple(request.exclude), owner=request.owner
        )
        return [(self._pool.card(hit.name, hit.owner), hit.score) for hit in hits]

    def _named(self, request: Request, method: "Composition") -> list[tuple[AdapterCard, float]]:
        names = request.adapters or ()
        count = method.experts(len(names))
        cards = [self._pool.card(name, request.owner) for name in names]
        if not count:
            raise RamoleError(
                f"Method {request.method} mixes no adapters, but {', '.join(names)} were named; "
                "take them out, or choose another method."
            )
        if count == len(cards):
            if not method.weighs_similarity or request.weights is not None:
                return [(card, float("nan")) for card in cards]
            scores = self._retriever.similarities(request.prompt, cards)
            return list(zip(cards, scores, strict=True))
        if request.weights is not None:
            raise RamoleError(
                f"Method {request.method} uses {count} adapter, but weights were given for "
                f"{len(cards)}; take the weights out, or choose a method that mixes."
            )
        scores = self._retriever.similarities(request.prompt, cards)
        best = sorted(zip(cards, scores, strict=True), key=lambda pair: -pair[1])
        return best[:count]

    def _chosen(self, card: AdapterCard, score: float) -> "Chosen":
        from ramole_core.engine.ticket import Chosen

        return Chosen(card.name, score, card.content, lambda: self._loras(card))

    def _loras(self, card: AdapterCard) -> "LoraSet":
        from ramole_core.composition import Lora

        tensors = self._pool.tensors(card)
        return {path: Lora(A=A, B=B) for path, (A, B) in tensors.modules.items()}
