"""Read every card from disk; a folder that cannot be served becomes a sentence."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from ramole_core.errors import AdapterRefused
from ramole_core.pool.card import AdapterCard
from ramole_core.pool.inspection import WEIGHTS
from ramole_core.pool.manifest import read_card
from ramole_core.pool.store import Store

Cards = dict[tuple[str | None, str], AdapterCard]
"""By owner and name."""


def read_samples(adapters_dir: Path) -> tuple[Cards, list[str]]:
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


def read_uploads(store: Store) -> tuple[Cards, list[str]]:
    """The cards and problems of every owner's uploads."""
    folders, unread = store.folders()
    cards, problems = _read(folders, lambda card: store.place(card.name, card.owner), sample=False)
    return cards, unread + problems


def without(cards: Cards, gone: Sequence[AdapterCard]) -> Cards:
    """The cards less those that are gone."""
    folders = {card.folder for card in gone}
    return {key: card for key, card in cards.items() if card.folder not in folders}


def _read(
    folders: Iterable[Path], place: Callable[[AdapterCard], Path], *, sample: bool
) -> tuple[Cards, list[str]]:
    cards: Cards = {}
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
