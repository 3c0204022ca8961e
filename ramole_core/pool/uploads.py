"""The cards of the sample pool and of all uploads, read from disk and changed with it.

A folder that cannot be served becomes a sentence. A change is undone on disk, in memory and at the
listeners if one of them fails.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from ramole_core.errors import AdapterRefused
from ramole_core.pool.card import AdapterCard
from ramole_core.pool.inspection import WEIGHTS
from ramole_core.pool.manifest import read_card
from ramole_core.pool.store import Store

CardsByName = dict[tuple[str | None, str], AdapterCard]
"""By owner and name."""


def read_samples(adapters_dir: Path) -> tuple[CardsByName, list[str]]:
    """The sample pool's cards and problems; folders that begin with `_` or `.`, or hold no
    weights, are not adapters."""
    if not adapters_dir.is_dir():
        return {}, [f"The sample pool {adapters_dir} does not exist; set RAMOLE_ADAPTERS_DIR."]
    folders = (
        path
        for path in sorted(adapters_dir.iterdir())
        if not path.name.startswith(("_", ".")) and (path / WEIGHTS).exists()
    )
    return _read(folders, lambda card: adapters_dir / card.name, sample=True)


def _read(
    folders: Iterable[Path], place: Callable[[AdapterCard], Path], *, sample: bool
) -> tuple[CardsByName, list[str]]:
    cards: CardsByName = {}
    problems = []
    for folder in folders:
        try:
            card = read_card(folder, sample=sample)
            if place(card) != folder or (sample and card.owner is not None):
                raise AdapterRefused(
                    f"The adapter folder {folder} is left out: its manifest is of {card.key!r}; "
                    "give the folder its old place and name."
                )
        except AdapterRefused as problem:
            problems.append(str(problem))
        except OSError as error:
            problems.append(
                f"The adapter folder {folder} is left out: it cannot be read ({error.strerror}); "
                "check the disk."
            )
        else:
            cards[card.owner, card.name] = card
    return cards, problems


def without(cards: CardsByName, gone: Sequence[AdapterCard]) -> CardsByName:
    """The cards less those that are gone."""
    folders = {card.folder for card in gone}
    return {key: card for key, card in cards.items() if card.folder not in folders}


class Listener(Protocol):
    """A listener, notified after a change is on disk; an error in `added` undoes the addition."""

    def added(self, card: AdapterCard) -> None: ...
    def removed(self, card: AdapterCard) -> None: ...


@dataclass(frozen=True)
class Aside:
    """A removed adapter whose files are kept."""

    card: AdapterCard
    """Its card before removal."""
    hidden: Path
    store: Store

    @property
    def bytes(self) -> int:
        """Bytes of the hidden weights."""
        return self.card.bytes

    def discard(self) -> None:
        """Delete its files."""
        self.store.discard(self.hidden)


class Uploads:
    """All owners' uploads. Changed by one thread at a time, read by any."""

    def __init__(self, store: Store):
        self._store = store
        self.cards: CardsByName = {}
        self.listeners: list[Listener] = []

    def read(self) -> list[str]:
        """Read every card; returns problems."""
        folders, unread = self._store.folders()
        place = self._store.place
        self.cards, problems = _read(folders, lambda c: place(c.name, c.owner), sample=False)
        return unread + problems

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
        return self._add(aside.card, self._store.show(aside.hidden, aside.card.folder))

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
