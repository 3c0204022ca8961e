"""The adapters that a merge is made of: by name from the pool, or from folders and archives."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ramole_core.base.files import local_path
from ramole_core.composition import Adapter, Lora, Sites
from ramole_core.errors import RamoleError
from ramole_core.pool import AdapterCard, Limits, Pool
from ramole_core.pool.pairs import Shapes
from ramole_core.settings import Settings


@dataclass(frozen=True)
class MergeSource:
    """One adapter, scale folded into B."""

    name: str
    """The card's; the word that named it where two cards have the same."""
    card: AdapterCard
    loras: dict[str, Lora]
    """By module path, as uploaded."""

    def adapter(self, sites: Sites) -> Adapter:
        """The adapter as a method's input, without a similarity."""
        return Adapter.of(self.name, self.card.content, self.loras, sites)


def read_sources(
    words: Sequence[str], *, settings: Settings, shapes: Shapes, owner: str | None = None
) -> list[MergeSource]:
    """The adapters that the words name, in their order.

    A word is a name of the pool, or where there is a folder or archive of that path, that. Raises
    RamoleError for one that is neither, does not fit the base, or is there twice.
    """
    limits = Limits(max_upload_mb=settings.max_upload_mb, max_rank=settings.max_rank)
    pool = Pool(
        adapters_dir=settings.adapters_dir,
        data_dir=settings.data_dir,
        shapes=lambda: shapes,
        limits=limits,
        read_only=True,
    )
    known = {card.name for card in pool.cards(owner)}
    found: list[MergeSource] = []
    for word in words:
        if word not in known and (path := local_path("adapter", word)).exists():
            source = _read_folder(path, shapes=shapes, limits=limits)
        else:
            source = _read(pool, pool.card(word, owner))
        if any(source.card.content == other.card.content for other in found):
            raise RamoleError(
                f"The adapter {source.name} is there twice; name each once, and give it the weight "
                "that it should have with --weights."
            )
        if any(source.name == other.name for other in found):
            source = replace(source, name=word)
        found.append(source)
    return found


def _read_folder(path: Path, *, shapes: Shapes, limits: Limits) -> MergeSource:
    """Read a folder as an upload is checked, by a temporary pool."""
    with tempfile.TemporaryDirectory(prefix="ramole-merge-") as home:
        empty = Path(home) / "samples"
        empty.mkdir()
        with Pool(
            adapters_dir=empty,
            data_dir=Path(home) / "data",
            shapes=lambda: shapes,
            limits=limits,
        ) as pool:
            return _read(pool, pool.add(path))


def _read(pool: Pool, card: AdapterCard) -> MergeSource:
    return MergeSource(card.name, card, pool.tensors(card).loras)
