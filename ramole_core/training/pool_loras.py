"""The pool's adapters as LoRAs by module path, for training and measuring gates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ramole_core.composition import Lora
from ramole_core.pool import AdapterCard, Limits, Pool
from ramole_core.settings import Settings


@dataclass(frozen=True)
class PoolLoras:
    """Adapters of the pool, scale folded into B."""

    loras: dict[str, dict[str, Lora]]
    """By name, then module path."""
    checksums: dict[str, str]
    """Of the content, by name."""
    cards: tuple[AdapterCard, ...]


def read_loras(
    names: Sequence[str], *, settings: Settings, shapes: Mapping[str, tuple[int, int]]
) -> PoolLoras:
    """The adapters of these names; raises RamoleError for an unknown one."""
    pool = Pool(
        adapters_dir=settings.adapters_dir,
        data_dir=settings.data_dir,
        shapes=lambda: shapes,
        limits=Limits(max_rank=settings.max_rank),
        read_only=True,
    )
    cards = {name: pool.card(name) for name in names}
    loras = {
        name: {path: Lora(A=A, B=B) for path, (A, B) in pool.tensors(card).modules.items()}
        for name, card in cards.items()
    }
    return PoolLoras(
        loras, {name: card.content for name, card in cards.items()}, tuple(cards.values())
    )
