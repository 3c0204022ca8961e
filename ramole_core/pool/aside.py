"""A removed adapter that can be restored: out of the pool, its files hidden.

Removing is a rename, so bringing back is one too: the same bytes, the same card. Whoever sets an
adapter aside discards it in the end; what a kill leaves is swept when the pool is opened again.
"""

from dataclasses import dataclass
from pathlib import Path

from ramole_core.errors import AdapterRefused
from ramole_core.pool.card import AdapterCard
from ramole_core.pool.store import Store


@dataclass(frozen=True)
class Aside:
    """A removed adapter."""

    card: AdapterCard
    """As it was."""
    hidden: Path
    store: Store

    @property
    def bytes(self) -> int:
        """Bytes of the hidden weights."""
        return self.card.bytes

    def show(self) -> None:
        """Put its folder back in its place; AdapterRefused where that is taken, or where there is
        nothing to put back."""
        if not self.hidden.is_dir() or self.card.folder.exists():
            raise AdapterRefused(
                f"The files of {self.card.name!r} cannot be put back; add the adapter again."
            )
        self.store.show(self.hidden, self.card.folder)

    def hide(self) -> None:
        """Undo `show`."""
        self.store.show(self.card.folder, self.hidden)

    def discard(self) -> None:
        """Delete its files."""
        self.store.discard(self.hidden)
