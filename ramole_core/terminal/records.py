"""The JSON record of an answer."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from ramole_core.facts import asked_fields

if TYPE_CHECKING:
    from ramole_core.request import Generation, Request


ALWAYS = (
    "prompt", "method", "adapters", "weights", "options", "temperature", "top_p", "seed", "trace",
)  # fmt: skip
"""Fields of every record; other fields of a request only where they are set."""


def answer_record(
    request: "Request", answer: "Generation", trace: Path | None
) -> dict[str, object]:
    """An answer's record; a similarity is null where an adapter was named, not found."""
    from ramole_core.answer import parts_record
    from ramole_core.effects import effects_record

    return {
        "prompt": request.prompt,
        "text": answer.text,
        "method": answer.method or request.method,
        "adapters": answer.adapters,
        "similarities": answer.scores,
        "weights": answer.weights or request.weights,
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
        **({"notes": list(answer.notes)} if answer.notes else {}),
        **{name: value for name, value in asked_fields(request).items() if name not in ALWAYS},
        **effects_record(answer),
        **({"parts": parts_record(answer)} if answer.parts else {}),
    }
