"""Next-token probabilities of base and mixture at one position of an answer.

A request is prepared once, since neighbouring tokens are usually explained next.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ramole_core.errors import RamoleError
from ramole_core.pool import AdapterCard
from ramole_core.request import Request

if TYPE_CHECKING:
    from ramole_core.engine.prompt import Prepared
    from ramole_core.ramole import Ramole

MAX_CACHED = 4
"""Requests that are cached; each is some names and numbers."""


@dataclass(frozen=True)
class Explanation:
    """The likeliest next tokens at one position, with their probabilities."""

    base: list[tuple[str, float]]
    mixture: list[tuple[str, float]]
    base_ids: Sequence[int] = ()
    """The same tokens by number, as `prefix_ids` takes them; empty where they were not kept."""
    mixture_ids: Sequence[int] = ()


class Explaining:
    """Explanations by one system; thread-safe. A listener of the pool, which drops what was kept of
    a removed adapter."""

    def __init__(self, ramole: "Ramole"):
        self._ramole = ramole
        self._lock = threading.Lock()
        self._changes = 0
        self._known: list[tuple[Request, Prepared]] = []

    def explain(
        self,
        request: Request,
        position: int,
        top: int = 10,
        *,
        token_ids: Sequence[int] | None = None,
    ) -> Explanation:
        """As `Ramole.explain`."""
        if top < 0:
            raise RamoleError(f"top={top}; give how many of the likeliest tokens, from 0.")
        prepared = self._prepared(request)
        given = [*prepared.prompt.ids, *request.prefix_ids]
        if token_ids is None:
            token_ids = given
            if position >= len(given):
                token_ids = self._answered(request, prepared, position) or token_ids
        if not 0 <= position < len(token_ids):
            raise RamoleError(
                f"position={position}, but the prompt and its answer have {len(token_ids)} tokens; "
                f"choose 0 to {len(token_ids) - 1}."
            )
        facts = self._ramole.engines.facts
        if position >= facts.context or not all(0 <= t < facts.vocabulary for t in token_ids):
            raise RamoleError(
                f"token_ids has {len(token_ids)} tokens from {min(token_ids)} to "
                f"{max(token_ids)}; the base reads {facts.context}, from 0 to "
                f"{facts.vocabulary - 1}."
            )
        base, mixture = self._ramole.engines.next_tokens(
            [prepared.bare(), prepared], token_ids[: position + 1], top=top
        )
        return Explanation(base.tokens, mixture.tokens, base.ids, mixture.ids)

    def _answered(self, request: Request, prepared: "Prepared", position: int) -> list[int]:
        """Tokens of the prompt and of its answer up to `position`, or the answer's end; the prompt
        has the turns that it had, though fewer tokens of an answer leave room for more."""
        wanted = position - len(prepared.prompt.ids) + 1
        asked = replace(
            request,
            history=request.history[prepared.prompt.dropped :],
            drop_turns=False,
            max_new_tokens=min(wanted, request.max_new_tokens),
            effects=False,
            trace=True,
        )
        trace = self._ramole.generate([asked])[0].trace
        return trace.token_ids if trace else []

    def added(self, card: AdapterCard) -> None:
        self._forget()

    def removed(self, card: AdapterCard) -> None:
        self._forget()
        self._ramole.forget_units()

    def _forget(self) -> None:
        """Drop cached requests after the pool has changed."""
        with self._lock:
            self._known.clear()
            self._changes += 1

    def _prepared(self, request: Request) -> "Prepared":
        """Prepare the request, and find its weights where it has examples."""
        with self._lock:
            found, changes = [p for known, p in self._known if known == request], self._changes
        if found:
            return found[0]
        prepared = self._found(request)
        with self._lock:
            if changes == self._changes and request.mix is None:  # a mix may be found anew
                self._known = [(request, prepared), *self._known][:MAX_CACHED]
        return prepared

    def _found(self, request: Request) -> "Prepared":
        ramole = self._ramole
        prepared = ramole.prepare([request])[0]
        if prepared.later:
            raise RamoleError(
                "This prompt is answered part by part; explain one part by its own prompt, with "
                "the parts before it as history, and split=False."
            )
        fit = ramole.engines.fit(prepared)
        if fit is not None and not fit.done:
            fit.close()
            ramole.generate([replace(request, max_new_tokens=len(request.prefix_ids) + 1)])
            fit = ramole.engines.fit(prepared)
        return prepared if fit is None else fit.fitted
