"""Mixes of sessions, removed with their session."""

import logging
from typing import TYPE_CHECKING

from .owner import PREFIX

if TYPE_CHECKING:
    from ramole_core import Ramole

log = logging.getLogger(__name__)


class SessionMixes:
    """The mixes of all sessions; those of other owners are never touched."""

    def __init__(self, ramole: "Ramole"):
        self._ramole = ramole

    def owners(self) -> set[str]:
        """Sessions with mixes, of earlier processes too."""
        return {owner for owner in self._ramole.mix_owners() if owner.startswith(PREFIX)}

    def drop(self, owner: str) -> None:
        """Remove a session's mixes; the next start retries what the disk refuses."""
        if not owner.startswith(PREFIX):
            return
        try:
            self._ramole.remove_mixes(owner)
        except OSError as error:
            log.warning(
                "The mixes of a session that is over could not be removed: %s", type(error).__name__
            )
