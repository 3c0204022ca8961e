"""Quotas of uploads: by session, by address, in all. Where there is no room left, the uploads of
the longest silent sessions are removed, of the same address or of all; never of active ones, and no
shared ones."""

import logging
import math
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ramole_core import AdapterCard, AdapterRefused, Ramole, RamoleError

from ..parts.per_system import one_of
from .owner import PREFIX
from .presence import GONE_SECONDS, IDLE_SECONDS, Presence, Use, leavers
from .removed import Removed

log = logging.getLogger(__name__)
MIB = 2**20
SESSIONS = 4
"""Quota of an address, in quotas of one session."""
Undoable = Sequence[tuple[str, int]]
"""Owner and bytes of removals that can be undone."""
NO_SESSION = (
    "An upload belongs to a session, and this call has none; use the page or gradio_client, or "
    "send the header x-ramole-session with a secret of at least 16 characters."
)
FULL = "The server has no room left for uploads; try again later."


class Quota:
    """The room for uploads; counts those in the pool and those being checked."""

    def __init__(
        self,
        ramole: Ramole,
        *,
        adapters: int = 10,
        mb: int | None = None,
        address_adapters: int | None = None,
        address_mb: int | None = None,
        all_mb: int = 4096,
        presence: Presence | None = None,
    ):
        self._ramole, self.pool = ramole, ramole.pool
        self.shared = ramole.settings.shared_uploads
        self.presence = presence or Presence()
        self.adapters, self.mb = adapters, mb or 4 * ramole.settings.max_upload_mb
        """Most adapters and MiB of one session."""
        self.address_adapters = address_adapters or SESSIONS * self.adapters
        self.address_mb = address_mb or SESSIONS * self.mb
        """The same from one address, where it is known."""
        self.all_mb = all_mb
        self.removed, self._lock = Removed(), threading.RLock()
        self._coming: dict[str, list[int]] = defaultdict(list)
        self._uploaders, self._addresses = dict[str, str](), dict[str, str]()

    @contextmanager
    def room(self, owner: str | None, size: int, *, address: str = "") -> Iterator[None]:
        """Reserve room for an upload of `size` bytes while it is added, removing uploads of silent
        sessions if needed; AdapterRefused without any."""
        if owner is None:
            raise AdapterRefused(NO_SESSION)
        with self._lock:
            self._forget_removed(owner, size, address)
            for silent in self._leavers(owner, size, address):
                log.info("Uploads of a session without a sign of life make room for others.")
                self.leave(silent)
            if self._leavers(owner, size, address):  # what was to go could not be removed
                raise AdapterRefused(FULL)
            self._coming[owner].append(size)
            self._addresses[owner] = address
            self.presence.watch(owner)
        try:
            with self.presence.alive(owner):
                yield
        finally:
            with self._lock:
                self._coming[owner].remove(size)
                if not self._coming[owner]:
                    del self._coming[owner]

    def added(self, card: AdapterCard, owner: str | None) -> None:
        """Record the upload's session, which a pool with shared uploads does not."""
        if owner is not None:
            with self._lock:
                self._uploaders[card.key] = owner

    def owns(self, card: AdapterCard, owner: str | None) -> bool:
        """Whether this session uploaded the adapter, and so may change and remove it."""
        if owner is None or card.sample:
            return False
        return card.owner == owner or self._uploaders.get(card.key) == owner

    def owned(self, name: str, owner: str | None) -> AdapterCard:
        """The session's own adapter of that name; AdapterRefused for any other."""
        card = self.pool.card(name, owner)
        if not self.owns(card, owner):
            place = "is part of the sample pool" if card.sample else "was not uploaded here"
            raise AdapterRefused(f"{card.name} {place}, so it is not this session's to change.")
        return card

    def remove(self, name: str, owner: str | None, *, keep: bool = False) -> None:
        """Remove one of the session's own adapters; AdapterRefused for any other. `keep`: it can be
        brought back for a while."""
        card = self.owned(name, owner)
        aside = self.pool.set_aside(card.name, owner=owner)
        with self._lock:
            self._uploaders.pop(card.key, None)
        if aside is not None:
            self.removed.keep(aside, owner or "") if keep else aside.discard()

    def remove_shared(self, name: str) -> None:
        """Remove an upload of everyone's for the operator; raises as `Pool.remove` does."""
        with self._lock:
            self.pool.remove(name, owner=None)
            self._uploaders.pop(f"pool/{name}", None)  # as `AdapterCard.key` says it

    def undo(self, token: str, owner: str | None) -> AdapterCard:
        """Bring back what this session removed; AdapterRefused where it cannot be."""
        removal = self.removed.take(token, owner)
        try:
            with self._lock:
                address = self._addresses.get(removal.owner, "")
                for silent in self._leavers(removal.owner, removal.aside.bytes, address):
                    self.leave(silent)
                card = self.pool.bring_back(removal.aside)
                self._uploaders[card.key] = removal.owner
        except BaseException:
            self.removed.give_back(removal)
            raise
        return card

    def leave(self, owner: str) -> int:
        """Remove every upload and mix of a session that is over; returns how many uploads. Shared
        ones stay."""
        self.removed.drop_all(owner)
        self._drop_mixes(owner)
        if self.shared:
            return 0
        with self._lock:
            count = 0
            for card in [card for card in self.pool.all_cards() if card.owner == owner]:
                try:
                    self.pool.remove(card.name, owner=owner)
                except RamoleError as error:
                    log.warning("An upload could not be removed: %s", type(error).__name__)
                else:
                    self._uploaders.pop(card.key, None)
                    count += 1
        return count

    def mixers(self) -> set[str]:
        """Sessions with mixes, of earlier processes too."""
        return {owner for owner in self._ramole.mix_owners() if owner.startswith(PREFIX)}

    def _drop_mixes(self, owner: str) -> None:
        """Remove a session's mixes; the next start retries what the disk refuses."""
        try:
            if owner.startswith(PREFIX):
                self._ramole.remove_mixes(owner)
        except OSError as error:
            what = type(error).__name__
            log.warning("The mixes of a session that is over could not be removed: %s", what)

    def tidy(self, silent: float = GONE_SECONDS) -> int:
        """Remove the uploads of sessions without a sign of life for so many seconds, and forget
        sessions without uploads; returns how many uploads went."""
        with self._lock:
            uses = self._uses(self.removed.sizes())
            over = {use.owner for use in uses if use.owner and (use.silent or 0) >= silent}
            mixers = self.mixers()
            over |= {owner for owner in mixers if self.presence.silent(owner) >= silent}
            count = sum(self.leave(owner) for owner in over)
            uses = self._uses(self.removed.sizes())
            there = {use.owner for use in uses if use.owner} | (mixers - over)
            self._addresses = {o: a for o, a in self._addresses.items() if o in there}
            self.presence.keep_only(there)
        return count

    def used(self, owner: str | None) -> tuple[int, int]:
        """(adapters, bytes) of this session in the pool."""
        sizes = [card.bytes for card in self.pool.all_cards() if self.owns(card, owner)]
        return len(sizes), sum(sizes)

    def sentence(self, owner: str | None) -> str:
        count, size = self.used(owner)
        kept = sum(bytes for whose, bytes in self.removed.sizes() if whose == owner)
        more = f", {kept / MIB:.1f} of them by what can still be undone" if kept else ""
        return (
            f"{count} of {self.adapters} adapters and {(size + kept) / MIB:.1f} of {self.mb} MB of "
            f"this session are used{more}."
        )

    def _check(self, owner: str, size: int, kept: Undoable) -> None:
        """Raise AdapterRefused where the session's own limits leave no room."""
        count, used = self.used(owner)
        coming = self._coming.get(owner, [])
        count, used = count + len(coming), used + sum(coming)
        if count >= self.adapters:
            raise AdapterRefused(
                f"This session has {count} adapters, the most that it may have; remove one first."
            )
        left = self.mb - (used + sum(bytes for whose, bytes in kept if whose == owner)) / MIB
        if size / MIB > left:
            raise AdapterRefused(
                f"It has {size / MIB:.1f} MB, and {left:.1f} of the session's {self.mb} MB "
                "are left; remove an adapter first."
            )

    def _leavers(
        self, owner: str, size: int, address: str, kept: Undoable | None = None
    ) -> list[str]:
        """Silent sessions that must go for this upload; AdapterRefused where that is no help, or
        the session's own limits leave no room. `kept`: the removals that count; None, all."""
        kept = self.removed.sizes() if kept is None else kept
        self._check(owner, size, kept)
        uses, near = self._uses(kept, staying=owner), []
        if address:
            here = [use for use in uses if use.owner == owner or use.address == address]
            most = self.address_mb * MIB
            near = leavers(here, size=size, adapters=self.address_adapters, bytes=most)
        if near is None:
            raise AdapterRefused(
                f"Uploads from your address may come to {self.address_adapters} adapters and "
                f"{self.address_mb} MB, and others who use it take up the rest; remove one first, "
                "or try again later."
            )
        stay = [use for use in uses if use.owner not in near]
        room = self.pool.limits.max_adapters - sum(card.sample for card in self.pool.all_cards())
        others = leavers(stay, size=size, adapters=room, bytes=self.all_mb * MIB)
        if others is None:
            raise AdapterRefused(FULL)
        return [*near, *others]

    def _uses(self, removed: Undoable, *, staying: str | None = None) -> list[Use]:
        """Each owner's use; `staying` may not be evicted. Bytes without an owner do not count."""
        sizes = defaultdict[str | None, list[int]](list)
        for card in self.pool.all_cards():
            if not card.sample:
                sizes[card.owner or self._uploaders.get(card.key)].append(card.bytes)
        for owner, coming in self._coming.items():
            sizes[owner] += coming
        kept = Counter[str | None]()
        for owner, size in removed:
            kept[owner] += size
        return [
            Use(
                owner=owner,
                address=self._addresses.get(owner or "", ""),
                adapters=len(sizes[owner]),
                bytes=sum(sizes[owner]) + kept[owner] if owner else 0,
                silent=None if owner == staying else self._silence(owner),
            )
            for owner in {**sizes, **kept}
        ]

    def _forget_removed(self, owner: str, size: int, address: str) -> None:
        """Drop undoable removals where that makes room: first this session's, then the oldest."""
        held, kept = self.removed.sizes(), []
        least = self._must_leave(owner, size, address, [])
        if self._must_leave(owner, size, address, held) <= least:
            return
        latest_first = dict.fromkeys(whose for whose, _ in reversed(held))
        for whose in sorted(latest_first, key=lambda whose: whose == owner):
            more = [*kept, *(one for one in held if one[0] == whose)]
            if self._must_leave(owner, size, address, more) <= least:
                kept = more
            else:
                self.removed.drop_all(whose)

    def _must_leave(self, owner: str, size: int, address: str, kept: Undoable) -> float:
        """How many sessions must go for this upload beside these removals; infinitely many where
        it is refused."""
        try:
            return len(self._leavers(owner, size, address, kept))
        except AdapterRefused:
            return math.inf

    def _silence(self, owner: str | None) -> float | None:
        """Seconds, where its uploads may be removed for that."""
        if owner is None or not owner.startswith(PREFIX) or self.shared or owner in self._coming:
            return None
        silent = self.presence.silent(owner)
        return silent if silent >= IDLE_SECONDS else None


def quota_of(ramole: Ramole) -> Quota:
    """The one Quota of this system: page and endpoints count together."""
    return one_of(Quota, ramole)
