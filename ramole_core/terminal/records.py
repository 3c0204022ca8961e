"""What `--json` prints: answers, and the checksums that make a run repeatable."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from ramole_core.base.checksum import weights_checksum
from ramole_core.base.fetch import find_base

if TYPE_CHECKING:
    from ramole_core.ramole import Ramole
    from ramole_core.request import Generation, Request


CONVERSATION = ("history", "drop_turns", "prefix_ids", "without", "examples", "mix")
"""Fields of a request that its answer's record has where they are said."""


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
        "options": request.options,
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
        **({"fitted": asdict(answer.fitted)} if answer.fitted else {}),
        **({"evidence": answer.evidence.record()} if answer.evidence else {}),
        **{name: value for name in CONVERSATION if (value := getattr(request, name))},
    }


def checksum_record(ramole: "Ramole") -> dict[str, object]:
    """SHA-256 of the base model, null until it has been fetched, and of all trained weights."""
    settings = ramole.settings
    checksum = None
    folder = find_base(settings.base_model, data_dir=settings.data_dir)
    if folder is not None:
        checksum = weights_checksum(folder, data_dir=settings.data_dir)
    return {
        "base_model": settings.base_model,
        "base_checksum": checksum,
        "quantization": settings.quantization,
        "router_checksum": ramole.router_checksum,
        "weights_checksums": ramole.weights_checksums(),
    }
