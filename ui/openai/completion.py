"""An answer in OpenAI's words: whole, or in chunks; what it has no word for stands in `ramole`."""

import secrets
import time
from collections.abc import Sequence

import numpy as np

from ramole_core import Generation, Request, Step, mean_weights

from ..api.answers import how_of

REASONS = {"eos": "stop", "stop": "stop", "length": "length"}
OPENAI_HAS = ("finish_reason", "prompt_tokens", "new_tokens")


class Completion:
    """One answer's frame."""

    def __init__(self, model: str, *, usage: bool = False):
        """`usage`: a stream ends with the counts of tokens; `usage` of the other chunks is null."""
        self._frame = {
            "id": f"chatcmpl-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": model,
        }
        self._counts = {"usage": None} if usage else {}

    def whole(self, answer: Generation, request: Request, steps: Sequence[Step]) -> dict:
        """The finished answer. Its message names its adapters, so that it keeps them as an earlier
        turn, where it is sent back as it is."""
        message = {
            "role": "assistant",
            "content": answer.text,
            "refusal": None,
            "ramole": {"adapters": list(answer.adapters)},
        }
        choice = {"index": 0, "message": message, "logprobs": None}
        return {
            **self._frame,
            "object": "chat.completion",
            "choices": [{**choice, "finish_reason": REASONS[answer.finish_reason]}],
            "usage": usage_of(answer),
            "ramole": about(answer, request, steps),
        }

    def chunk(self, **delta: str) -> dict:
        """A part of the answer."""
        return self._chunk([_choice(delta, None)])

    def end(self, answer: Generation, request: Request, steps: Sequence[Step]) -> dict:
        """The chunk that says how the answer ended."""
        last = self._chunk([_choice({}, REASONS[answer.finish_reason])])
        return {**last, "ramole": about(answer, request, steps)}

    def count(self, answer: Generation) -> dict:
        """The chunk with the counts of tokens."""
        return {**self._chunk([]), "usage": usage_of(answer)}

    def _chunk(self, choices: list[dict]) -> dict:
        frame = {**self._frame, "object": "chat.completion.chunk"}
        return {**frame, "choices": choices, **self._counts}


def usage_of(answer: Generation) -> dict:
    """The counts of tokens."""
    return {
        "prompt_tokens": answer.prompt_tokens,
        "completion_tokens": answer.new_tokens,
        "total_tokens": answer.prompt_tokens + answer.new_tokens,
    }


def about(answer: Generation, request: Request, steps: Sequence[Step]) -> dict:
    """What `/ask` tells of an answer, with each adapter's mean weight in the modules that it has,
    and its share of what all contributed; null where no token was traced."""
    how = {n: v for n, v in how_of(answer, request, steps).items() if n not in OPENAI_HAS}
    gates = [
        mean_weights(step.weights, step.present)
        for step in steps
        if step.weights is not None and step.present is not None
    ]
    shares = [share for step in steps if (share := step.shares) is not None]
    count = len(answer.adapters)
    told = zip(how["adapters"], _means(gates, count), _means(shares, count), strict=True)
    return {**how, "adapters": [{**a, "weight": w, "share": s} for a, w, s in told]}


def _means(rows: Sequence[np.ndarray], k: int) -> list[float | None]:
    """The mean of rows of k numbers."""
    if not rows or not k:
        return [None] * k
    return [round(float(mean), 4) for mean in np.stack(rows).astype(np.float64).mean(0)]


def _choice(delta: dict[str, str], reason: str | None) -> dict:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
