"""What `--json` prints: cards, answers and the checksums that make a run repeatable."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ramole_core.engine.request import Generation, Request
    from ramole_core.pool import AdapterCard
    from ramole_core.ramole import Ramole


def card_record(card: "AdapterCard") -> dict[str, object]:
    """A card without its folder, which is the machine's own business."""
    return {
        "name": card.name,
        "owner": card.owner,
        "rank": card.rank,
        "ranks": card.ranks,
        "scale": card.scale,
        "modules": card.modules,
        "layers": card.layers,
        "dtype": card.dtype,
        "parameters": card.parameters,
        "bytes": card.bytes,
        "sha256": card.sha256,
        "base_model": card.base_model,
        "licence": card.licence,
        "description": card.description,
        "notes": card.notes,
        "examples": card.examples,
        "vector_from": card.vector_from,
        "added": card.added,
    }


def answer_record(
    request: "Request", answer: "Generation", trace: Path | None
) -> dict[str, object]:
    """An answer with what made it; a similarity is null where an adapter was named, not found."""
    return {
        "prompt": request.prompt,
        "text": answer.text,
        "method": request.method,
        "adapters": answer.adapters,
        "similarities": answer.scores,
        "weights": request.weights,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "seed": request.seed,
        "finish_reason": answer.finish_reason,
        "prompt_tokens": answer.prompt_tokens,
        "new_tokens": answer.new_tokens,
        "seconds": answer.seconds,
        "first_token_seconds": answer.first_token_seconds,
        "stages": answer.extra,
        "trace": trace and str(trace),
    }


def checksum_record(ramole: "Ramole") -> dict[str, object]:
    """SHA-256 of the base model, null until it has been loaded, and of the trained router."""
    settings = ramole.settings
    return {
        "base_model": settings.base_model,
        "base_checksum": ramole.base.checksum if ramole.loaded else None,
        "quantization": settings.quantization,
        "router_checksum": ramole.router_checksum,
    }
