"""How much a session may upload, and what becomes of it when the session is over."""

import logging
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from ramole_core import AdapterRefused, RamoleError

from .owner import PREFIX

if TYPE_CHECKING:
    from ramole_core import AdapterCard, Ramole

log = logging.getLogger(__name__)
MIB = 2**20


class Quota:
    """The room that a session has; counts what is in the pool and what is being checked now."""

    def __init__(
        self, ramole: "Ramole", *, adapters: int = 10, mb: int | None = None, all_mb: int = 4096
    ):
        self.pool = ramole.pool
        self.adapters = adapters
        """Most adapters of one session."""
        self.mb = mb or 4 * ramole.settings.max_upload_mb
        """Most MiB of one session."""
        self.all_mb = all_mb
        """Most MiB of all sessions together."""
        self._lock = threading.Lock()
        self._coming: dict[str, list[int]] = defaultdict(list)
        self._uploaders: dict[str, str] = {}

    @contextmanager
    def room(self, owner: str | None, size: int) -> Iterator[None]:
        """Hold room for an upload of `size` bytes while it is added; AdapterRefused without any."""
        if owner is None:
            raise AdapterRefused(
                "An upload belongs to a session, and this call has none; use the page or "
                "gradio_client, or send the header x-ramole-session with a secret of at least "
                "16 characters."
            )
        with self._lock:
            self._check(owner, size)
            self._coming[owner].append(size)
        try:
            yield
        finally:
            with self._lock:
                self._coming[owner].remove(size)
                if not self._coming[owner]:
                    del self._coming[owner]

    def added(self, card: "AdapterCard", owner: str | None) -> None:
        """Remember whose upload this is: the pool of a server that shares uploads does not."""
        if owner is not None:
            with self._lock:
                self._uploaders[card.key] = owner

    def owns(self, card: "AdapterCard", owner: str | None) -> bool:
        """Whether this session uploaded the adapter, and so may change and remove it."""
        if owner is None or card.sample:
            return False
        return card.owner == owner or self._uploaders.get(card.key) == owner

    def owned(self, name: str, owner: str | None) -> "AdapterCard":
        """The session's own adapter of that name; AdapterRefused for any other."""
        card = self.pool.card(name, owner)
        if not self.owns(card, owner):
            place = "is part of the sample pool" if card.sample else "was not uploaded here"
            raise AdapterRefused(f"{card.name} {place}, so it is not this session's to change.")
        return card

    def remove(self, name: str, owner: str | None) -> None:
        """Remove one of the session's own adapters; AdapterRefused for any other."""
        card = self.owned(name, owner)
        self.pool.remove(card.name, owner=owner)
        with self._lock:
            self._uploaders.pop(card.key, None)

    def used(self, owner: str | None) -> tuple[int, int]:
        """(adapters, bytes) of this session in the pool."""
        sizes = [card.bytes for card in self.pool.all_cards() if self.owns(card, owner)]
        return len(sizes), sum(sizes)

    def sentence(self, owner: str | None) -> str:
        """What is used and what is left, for the page."""
        count, size = self.used(owner)
        return (
            f"{count} of {self.adapters} adapters and {size / MIB:.1f} of {self.mb} MB of this "
            "session are used."
        )

    def _check(self, owner: str, size: int) -> None:
        count, used = self.used(owner)
        coming = self._coming.get(owner, [])
        if count + len(coming) >= self.adapters:
            raise AdapterRefused(
                f"This session has {count + len(coming)} adapters, the most that it may have; "
                "remove one first."
            )
        left = self.mb - (used + sum(coming)) / MIB
        if size / MIB > left:
            raise AdapterRefused(
                f"It has {size / MIB:.1f} MB, and {left:.1f} of the session's {self.mb} MB "
                "are left; remove an adapter first."
            )
        everyone = sum(card.bytes for card in self.pool.all_cards() if not card.sample)
        waiting = sum(sum(sizes) for sizes in self._coming.values())
        if everyone + waiting + size > self.all_mb * MIB:
            raise AdapterRefused("The server has no room left for uploads; try again later.")


_quotas: "WeakKeyDictionary[Ramole, Quota]" = WeakKeyDictionary()
_guard = threading.Lock()


def quota_of(ramole: "Ramole") -> Quota:
    """The one Quota of this system: page and endpoints count together."""
    with _guard:
        return _quotas.setdefault(ramole, Quota(ramole))


def forget(ramole: "Ramole", owner: str | None) -> int:
    """Remove every upload of a session that is over; returns how many. Shared uploads stay."""
    if owner is None or ramole.settings.shared_uploads:
        return 0
    mine = [card.name for card in ramole.pool.all_cards() if card.owner == owner]
    return sum(_remove(ramole, name, owner) for name in mine)


def sweep(ramole: "Ramole") -> int:
    """Remove what sessions of an earlier process left behind; returns how many."""
    if ramole.settings.shared_uploads:
        return 0
    owners = {c.owner for c in ramole.pool.all_cards() if (c.owner or "").startswith(PREFIX)}
    return sum(forget(ramole, owner) for owner in owners)


def _remove(ramole: "Ramole", name: str, owner: str) -> bool:
    try:
        ramole.pool.remove(name, owner=owner)
    except RamoleError as error:
        log.warning("%s could not be removed: %s", name, error)
        return False
    return True
