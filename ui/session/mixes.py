"""Mixes that sessions kept: they go with their session, as its uploads do."""

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
        """Sessions that kept some, of earlier processes too."""
        return {owner for owner in self._ramole.mix_owners() if owner.startswith(PREFIX)}

    def drop(self, owner: str) -> None:
        """The session is over; what the disk does not let go is left to the next start."""
        if not owner.startswith(PREFIX):
            return
        try:
            self._ramole.remove_mixes(owner)
        except OSError as error:
            log.warning(
                "The mixes of a session that is over could not be removed: %s", type(error).__name__
            )
