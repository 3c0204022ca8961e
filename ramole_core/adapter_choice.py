"""Which adapters a request gets: those it names, those its method knows, or those that are found.

A method that examines has the nearest adapters answer to the prompt before it takes its k
(`ramole_core.engine.reference`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ramole_core.errors import RamoleError
from ramole_core.methods import complete_options
from ramole_core.pool import AdapterCard, Pool
from ramole_core.request import Request
from ramole_core.retrieval import Retriever

if TYPE_CHECKING:
    from ramole_core.composition import Candidate, Composition, LoraSet, Response, Trained


Examine = Callable[[Sequence[int], Sequence[Sequence["Candidate"]]], "Sequence[Sequence[Response]]"]
"""What each candidate answers to the prompts of these requests, by index."""

AT_ONCE = 256
"""Prompts that are embedded together; no more than the encoder remembers."""


class AdapterChoice:
    """Turns requests into their adapters; light to make, torch is imported on first use."""

    def __init__(
        self,
        pool: Pool,
        retriever: Retriever,
        *,
        max_new_tokens: int,
        weights: "Callable[[Composition], Trained | None]",
    ):
        """`max_new_tokens`: the most that this server gives to one request; `weights` gives a
        method's trained weights."""
        self._pool, self._retriever, self._weights = pool, retriever, weights
        self._max_new_tokens = max_new_tokens

    def choose(self, requests: Sequence[Request], examine: Examine) -> "list[list[Candidate]]":
        """The adapters of each request, best first where retrieved, in the given order where named.

        Prompts are embedded together. Raises RamoleError for an unknown method, option or adapter,
        and where the method cannot use those that were named, before any is examined.
        """
        from ramole_core.composition import find_method

        methods = [find_method(request.method) for request in requests]
        for request, method in zip(requests, methods, strict=True):
            self._check(request, method)
        found: list[list[Candidate]] = []
        for start in range(0, len(requests), AT_ONCE):
            pairs = list(zip(requests, methods, strict=True))[start : start + AT_ONCE]
            if asking := [r.prompt for r, method in pairs if self._needs_vector(r, method)]:
                self._retriever.remember(asking)
            found += [[self._candidate(*one) for one in self._found(*pair)] for pair in pairs]
        at = [n for n, method in enumerate(methods) if method.examines and found[n]]
        if at:
            answers = examine(at, [found[n] for n in at])
            for n, responses in zip(at, answers, strict=True):
                pairs = zip(found[n], responses, strict=True)
                heard = [replace(c, response=response) for c, response in pairs]
                found[n] = self._best(requests[n], methods[n], heard)
        return found

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
        if request.max_new_tokens > self._max_new_tokens:
            raise RamoleError(
                f"max_new_tokens={request.max_new_tokens}, but this server gives at most "
                f"{self._max_new_tokens}; ask for fewer, or raise RAMOLE_MAX_NEW_TOKENS."
            )

    def _needs_vector(self, request: Request, method: "Composition") -> bool:
        if request.adapters is None:
            return method.experts(request.k) > 0 and self._known(method) is None
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
            return [(card, float("nan")) for card in self._fixed(request, known)]
        hits = self._retriever.retrieve(
            request.prompt,
            k=max(count, method.examines),
            exclude=tuple(request.exclude),
            owner=request.owner,
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

    def _candidate(self, card: AdapterCard, score: float) -> "Candidate":
        from ramole_core.composition import Candidate

        return Candidate(card.name, score, card.content, lambda: self._loras(card))

    def _loras(self, card: AdapterCard) -> "LoraSet":
        from ramole_core.composition import Lora

        tensors = self._pool.tensors(card)
        return {path: Lora(A=A, B=B) for path, (A, B) in tensors.modules.items()}
