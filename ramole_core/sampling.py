"""Fields of a request that change its token probabilities, or report them."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated

from ramole_core.errors import WrongField
from ramole_core.request_fields import Takes
from ramole_core.request_parts import finite, read_whole, short

MAX_LOGPROBS = 20
"""Most likeliest tokens of a step."""
MAX_BIASED = 1024
"""Tokens of one `logit_bias`."""
MAX_DIGITS = 20
"""Digits of a token id that is written as a text."""
MAX_SCHEMA = 32_768
"""Characters of a JSON schema."""
MAX_OF_KEYWORD = {
    **dict.fromkeys(("minItems", "maxItems", "minProperties", "maxProperties"), 1000),
    **dict.fromkeys(("minLength", "maxLength"), 10_000),
    "multipleOf": 1000,
}
"""Largest number in a schema: a parser has as many parts, and a million take half a minute."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How tokens are drawn, beyond temperature and top_p. `Request` has these fields as its own.

    The order is that of transformers: repetition penalty, presence and frequency penalty, bias and
    format first, then temperature, `top_k`, `top_p` and `min_p`.
    """

    top_k: Annotated[
        int, Takes("whole", "Draw among so many of the likeliest tokens; 0: among all.", 0)
    ] = 0
    min_p: Annotated[
        float, Takes("number", "Draw among tokens with this share of the likeliest's chance.", 0, 1)
    ] = 0.0
    repetition_penalty: Annotated[
        float, Takes("number", "Above 1, tokens of prompt and answer come less easily.", 0.01, 100)
    ] = 1.0
    """The logit of each such token is divided by it where it is positive, else multiplied (CTRL,
    arXiv 1909.05858, section 4.1)."""
    presence_penalty: Annotated[
        float, Takes("number", "Taken off the logit of each token of the answer.", -100, 100)
    ] = 0.0
    frequency_penalty: Annotated[
        float, Takes("number", "The same for each time that the answer has it.", -100, 100)
    ] = 0.0
    logit_bias: Annotated[
        Mapping[int, int | float] | None,
        Takes(
            "parts",
            "Added to the logits, by token id.",
            option="",
            parts=lambda given: _read_bias(given) or None,
        ),
    ] = None
    json_schema: Annotated[
        Mapping[str, object] | None,
        Takes(
            "parts",
            "The answer is JSON of this schema, whatever is mixed.",
            option="",
            parts=lambda given: _read_schema(given),
        ),
    ] = None
    """Other tokens are not drawn. `{"type": "object"}`: any object. Where `max_new_tokens` ends it,
    it is the beginning of one."""
    logprobs: Annotated[
        int | None,
        Takes(
            "whole", "How many of the likeliest tokens each step names.", 0, MAX_LOGPROBS, option=""
        ),
    ] = None
    """With log probabilities of the model itself (at temperature 1, before penalties, bias and
    format), beside that of the step's own token; None: no log probabilities."""
    prompt_logprobs: Annotated[
        bool, Takes("truth", "The same of the prompt's tokens; needs logprobs.", option="")
    ] = False
    """In `Generation.prompt_logprobs`. The prompt is read whole, whatever the cache has of it."""

    @property
    def changes_logits(self) -> bool:
        """Whether the request changes the model's logits."""
        return bool(
            self.repetition_penalty != 1
            or self.presence_penalty
            or self.frequency_penalty
            or self.logit_bias
            or self.json_schema is not None
        )


def _read_bias(given: object) -> dict[int, float]:
    wanted = "a mapping from token ids to numbers, such as {42: -100}"
    if not isinstance(given, Mapping):
        raise WrongField("logit_bias", f"={short(given)}; pass {wanted}.")
    if len(given) > MAX_BIASED:
        raise WrongField("logit_bias", f" has {len(given)} tokens, and {MAX_BIASED} is the most.")
    found: dict[int, float] = {}
    for token, bias in given.items():
        digits = isinstance(token, str) and token.isdecimal() and len(token) <= MAX_DIGITS
        known = int(token) if digits else read_whole(token)
        if known is None or known < 0 or not _is_number(bias):
            raise WrongField("logit_bias", f" has {short(token)}: {short(bias)}; pass {wanted}.")
        found[known] = float(bias)
    return found


def _read_schema(given: object) -> dict[str, object]:
    def wrong(what: str) -> WrongField:
        return WrongField("json_schema", what)

    if not isinstance(given, Mapping):
        raise wrong(f'={short(given)}; pass a JSON schema, such as {{"type": "object"}}.')
    try:
        text = json.dumps(given)
    except (TypeError, ValueError, RecursionError):
        raise wrong(" is not JSON; pass mappings, lists, texts and numbers.") from None
    if len(text) > MAX_SCHEMA:
        raise wrong(f" has {len(text)} characters, and {MAX_SCHEMA} is the most; shorten it.")
    read = json.loads(text)
    for name, number in _numbers(read):
        if number > (most := MAX_OF_KEYWORD.get(name, math.inf)):
            raise wrong(f" has {name}={short(number)}, and {most} is the most; lower it.")
    return read


def _numbers(schema: object) -> Iterator[tuple[str, int | float]]:
    """Yield all numbers under a name, at any depth."""
    left = [schema]
    while left:
        part = left.pop()
        if isinstance(part, dict):
            yield from ((n, value) for n, value in part.items() if isinstance(value, int | float))
            left += part.values()
        elif isinstance(part, list):
            left += part


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and finite(value)
