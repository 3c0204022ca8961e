"""Inputs of training: the base model of the settings, and adapters of the pool."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ramole_core.base.model import BaseModel, load_base, pick_device
from ramole_core.composition import Lora
from ramole_core.kernels.half_dots import SUPPORTED as MULTIPLIES_BFLOAT16
from ramole_core.pool import AdapterCard, Limits, Pool
from ramole_core.settings import Settings, load_settings


def load_configured_base(quantization: str | None = None) -> BaseModel:
    """Load the base as training computes it, quantised by the settings or as given; raises
    RamoleError where it cannot be loaded. Where RAMOLE_DTYPE is unset, and the CPU does not
    multiply bfloat16, it computes in float32: PyTorch's products in bfloat16 are 8 to 150 times as
    slow there."""
    settings = load_settings()
    slow = pick_device(settings.device).type == "cpu" and not MULTIPLIES_BFLOAT16
    return load_base(
        settings.base_model,
        data_dir=settings.data_dir,
        quantization=quantization or settings.quantization,
        dtype="float32" if slow and settings.dtype == "auto" else settings.dtype,
        device=settings.device,
        chat_template=settings.chat_template,
    )


@dataclass(frozen=True)
class PoolLoras:
    """Adapters of the pool, scale folded into B."""

    loras: dict[str, dict[str, Lora]]
    """By name, then module path."""
    checksums: dict[str, str]
    """Checksums of the content, by name."""
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
    loras = {name: pool.tensors(card).loras for name, card in cards.items()}
    return PoolLoras(
        loras, {name: card.content for name, card in cards.items()}, tuple(cards.values())
    )
