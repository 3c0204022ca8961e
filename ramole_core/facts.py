"""Facts of an answer as plain data: model, checksums and the request."""

from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING

from ramole_core.base.fetch import find_base
from ramole_core.base.files import count_parameters, weights_checksum
from ramole_core.request import DEFAULTS, Request

if TYPE_CHECKING:
    from ramole_core.ramole import Ramole


def facts_of(
    ramole: "Ramole", *, adapters: Iterable[str] | None = None, owner: str | None = None
) -> dict[str, object]:
    """SHA-256 of the base model, null until it has been fetched, and of all trained weights; where
    `adapters` are named, of these too, of those that the owner sees."""
    settings = ramole.settings
    checksum = None
    folder = find_base(settings.base_model, data_dir=settings.data_dir)
    if folder is not None:
        checksum = weights_checksum(folder, data_dir=settings.data_dir)
    found: dict[str, object] = {
        "base_model": settings.base_model,
        "base_checksum": checksum,
        "quantization": getattr(ramole.model_facts, "quantization", settings.quantization),
        "router_checksum": ramole.router_checksum,
        "weights_checksums": ramole.weights_checksums(),
    }
    if adapters is not None:
        wanted = set(adapters)
        cards = ramole.pool.cards(owner)
        found["adapters"] = {card.name: card.sha256 for card in cards if card.name in wanted}
    return found


def model_words(ramole: "Ramole") -> str:
    """The base model, its size, how it is kept and how much it reads; its name alone until it is
    loaded."""
    name = ramole.settings.base_model.rpartition(":")[2].replace("==", " ")
    facts = ramole.model_facts
    folder = find_base(ramole.settings.base_model, data_dir=ramole.settings.data_dir)
    if facts is None or folder is None:
        return name
    millions = count_parameters(folder) / 1e6
    size = f"{millions / 1000:.1f} billion" if millions >= 1000 else f"{millions:.0f} million"
    kept = {"none": facts.dtype, "nf4": "NF4"}.get(facts.quantization, facts.quantization)
    return f"{name}, {size} parameters in {kept}, reads up to {facts.context:,} tokens"


def model_notes(ramole: "Ramole") -> tuple[str, ...]:
    """Notes for users of the base model, a sentence each; none until it is loaded."""
    return tuple(getattr(ramole.model_facts, "notes", ()))


def asked_fields(request: Request) -> dict[str, object]:
    """The fields of a request that differ from their defaults, prompt and method always; without
    the owner, which is private. `Request(**fields)` repeats the request."""
    return {
        name: value
        for name, value in asdict(request).items()
        if name in ("prompt", "method") or (name != "owner" and value != DEFAULTS[name])
    }
