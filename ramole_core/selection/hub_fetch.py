"""Fetch listed Hub adapters into the pool before a request's adapters are chosen.

Those that it names; and of those that are nearer than the pool's, as many as it takes, but none
where the base answers the text in any case.
"""

from collections.abc import Sequence
from dataclasses import replace

from ramole_core.hub import Hub, Wait
from ramole_core.pool import Pool
from ramole_core.request import Request
from ramole_core.retrieval import BaseExpert, Hit, Retriever

Fetched = tuple[Request, tuple[str, ...]]
"""The turn as the pool understands it, and a sentence for each adapter that came, or did not."""


class HubFetch:
    """Fetch listed adapters; light to make, does nothing where none is listed."""

    def __init__(self, hub: Hub, pool: Pool, retriever: Retriever, *, base: BaseExpert):
        """`base` says where the base answers."""
        self.hub, self._pool, self._retriever, self._base = hub, pool, retriever, base

    def named(self, turn: Request, wait: Wait) -> Fetched:
        """The adapters that the turn names; raises RamoleError where a listed one does not come."""
        names = turn.adapters or ()
        if not self.hub.allowed or not any(map(self.hub.is_listed, names)):
            return turn, ()
        there = {card.name for card in self._pool.cards(turn.owner)}
        said = self.hub.bring_named(names, there=there, wait=wait)
        here = [name if name in there else self.hub.name_in_pool(name) for name in names]
        return replace(turn, adapters=list(dict.fromkeys(here))), said

    def nearest(self, turn: Request, count: int, wait: Wait, *, abstains: bool) -> Fetched:
        """Those that are among the `count` nearest to the turn's text; `abstains`: the base answers
        where none is near enough."""
        near = self.hub.near(turn.prompt, count + self.hub.spare, turn.exclude)
        turn = self._plain(turn)
        if not near:
            return turn, ()
        hits = self._hits(turn, count)
        if abstains and not self._answered(turn, near[0][1], near[0][0].name, hits):
            return turn, ()
        return turn, self.hub.bring_nearer(near, hits, count, wait)

    def _plain(self, turn: Request) -> Request:
        """The request with its exclusions as the pool names them, without those that are listed
        and not fetched."""
        if not self.hub.allowed or not turn.exclude:
            return turn
        there = {card.name for card in self._pool.cards(turn.owner)}
        names = [n if n in there else self.hub.name_in_pool(n) for n in turn.exclude]
        return replace(turn, exclude=[n for n in names if n in there or not self.hub.is_listed(n)])

    def _hits(self, turn: Request, count: int) -> list[Hit]:
        """The pool's nearest; none of an empty or wholly excluded pool."""
        names = {card.name for card in self._pool.cards(turn.owner)}
        if not names - {*turn.exclude}:
            return []
        return self._retriever.retrieve(turn.prompt, count, turn.exclude, turn.owner)

    def _answered(self, turn: Request, score: float, name: str, hits: Sequence[Hit]) -> bool:
        """Whether adapters answer, or may, by similarity alone."""
        every = sorted([Hit(name, score), *hits], key=lambda hit: -hit.score)
        evidence = self._base.judge(turn.prompt, every)
        return evidence.decision == "adapters" or self._base.doubts(evidence)
