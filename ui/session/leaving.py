"""Remove the uploads of closed pages, after a grace period for reloads, and of earlier processes.

Closing and reloading end a page's heartbeat in the same way, and a page that is loaded anew has
another session. So the uploads of a tab that has a secret of its own go once it has no page open
and was silent for a while, however often a page of it was closed meanwhile.
"""

import logging

from ramole_core import Ramole

from .owner import PREFIX, page_owner
from .quota import quota_of

log = logging.getLogger(__name__)
GRACE_SECONDS = 90.0
"""Longer than a page's heartbeat interval, and than a reload."""


def leave(ramole: Ramole, session: str) -> None:
    """Handle a closed page: its uploads go, at once or in a while."""
    owner = quota_of(ramole).presence.gone(session)
    mine = page_owner(session)
    if mine is not None and owner in (None, mine):  # no uploads, or no secret to come back with
        _forget(ramole, mine)


def sweep_sessions(ramole: Ramole) -> None:
    """Remove closed pages that did not come back, and old sessions, once."""
    quota = quota_of(ramole)
    presence = quota.presence
    presence.sessions.sweep()
    quota.removed.expire()
    for owner in presence.departed(GRACE_SECONDS):
        _forget(ramole, owner)


def _forget(ramole: Ramole, owner: str) -> None:
    try:
        quota_of(ramole).leave(owner)
    except Exception:
        log.exception("Uploads of a page that was closed could not be removed.")


def sweep(ramole: Ramole) -> int:
    """Remove leftovers of an earlier process's sessions; returns how many."""
    whose = {card.owner or "" for card in ramole.pool.all_cards()}
    owners = {owner for owner in whose if owner.startswith(PREFIX)}
    quota = quota_of(ramole)
    return sum(quota.leave(owner) for owner in owners | quota.mixers())
