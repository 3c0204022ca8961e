"""All uploads: a change on disk, in memory and at the listeners is undone in all if one fails."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from ramole_core.pool.card import AdapterCard
from ramole_core.pool.shelf import Cards, without
from ramole_core.pool.store import Aside, Store


class Listener(Protocol):
    """A listener, notified after a change is on disk; an error in `added` undoes the addition."""

    def added(self, card: AdapterCard) -> None: ...
    def removed(self, card: AdapterCard) -> None: ...


class Uploads:
    """All owners' uploads. Changed by one thread at a time, read by any."""

    def __init__(self, store: Store, cards: Cards):
        self._store, self.cards = store, cards
        self.listeners: list[Listener] = []

    def publish(
        self, stage: Path, card: AdapterCard, *, earlier: AdapterCard | None = None
    ) -> AdapterCard:
        """Publish `stage` as the upload of `card`, replacing `earlier` or a damaged one."""
        target = self._store.place(card.name, card.owner)
        published = self._store.publish(stage, target)
        return self._add(replace(card, folder=target), published, earlier=earlier)

    def set_aside(self, card: AdapterCard) -> Aside:
        """Remove an upload, keeping its files."""
        before, self.cards = self.cards, without(self.cards, [card])
        try:
            hidden = self._store.hide(card.folder)
        except BaseException:
            self.cards = before
            raise
        for listener in self.listeners:
            with suppress(OSError):  # a copy of its own, which no card names any more
                listener.removed(card)
        return Aside(card, hidden, self._store)

    def bring_back(self, aside: Aside) -> AdapterCard:
        """Restore what was set aside; raises AdapterRefused, and then it stays aside."""
        return self._add(aside.card, _shown(aside))

    def _add(
        self,
        card: AdapterCard,
        on_disk: AbstractContextManager[None],
        *,
        earlier: AdapterCard | None = None,
    ) -> AdapterCard:
        """Add the card once its folder is `on_disk`, which undoes that where a listener raises."""
        before, notified = self.cards, list[Listener]()
        try:
            with on_disk:
                self.cards = {**before, (card.owner, card.name): card}
                for listener in self.listeners:
                    notified.append(listener)
                    listener.added(card)
        except BaseException:
            self.cards = before
            for listener in notified:
                with suppress(Exception):
                    listener.added(earlier) if earlier else listener.removed(card)
            raise
        return card


@contextmanager
def _shown(aside: Aside) -> Iterator[None]:
    aside.show()
    try:
        yield
    except BaseException:
        aside.hide()
        raise
