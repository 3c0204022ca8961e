"""Which adapters a request gets: those it names, or those that retrieval finds for it."""

from typing import TYPE_CHECKING

from ramole_core.engine.request import Request
from ramole_core.errors import RamoleError
from ramole_core.pool import AdapterCard, Pool
from ramole_core.retrieval import Retriever

if TYPE_CHECKING:
    from ramole_core.engine.ticket import Chosen
    from ramole_core.layers import LoraSet


class Chooser:
    """Turns a request into its adapters; light to make, torch is imported on first use."""

    def __init__(self, pool: Pool, retriever: Retriever, *, max_new_tokens: int):
        """`max_new_tokens`: the most that this server gives to one request."""
        self._pool, self._retriever = pool, retriever
        self._max_new_tokens = max_new_tokens

    def choose(self, request: Request) -> list["Chosen"]:
        """The request's adapters, best first where retrieved, in the given order where named.

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
            found = self._retrieved(request, method.experts(request.k))
        else:
            found = self._named(request, method.experts(len(request.adapters)))
        return [self._chosen(card, score) for card, score in found]

    def _retrieved(self, request: Request, count: int) -> list[tuple[AdapterCard, float]]:
        if not count:
            return []
        hits = self._retriever.retrieve(
            request.prompt, k=count, exclude=tuple(request.exclude), owner=request.owner
        )
        return [(self._pool.card(hit.name, hit.owner), hit.score) for hit in hits]

    def _named(self, request: Request, count: int) -> list[tuple[AdapterCard, float]]:
        names = request.adapters or ()
        cards = [self._pool.card(name, request.owner) for name in names]
        if not count:
            raise RamoleError(
                f"Method {request.method} mixes no adapters, but {', '.join(names)} were named; "
                "take them out, or choose another method."
            )
        if count == len(cards):
            return [(card, float("nan")) for card in cards]
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
