"""Fields of a request that change the odds of its tokens, or report them."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ramole_core.errors import RamoleError
from ramole_core.request_parts import read_whole, short

MAX_LOGPROBS = 20
"""Likeliest tokens that a step names at most."""
MAX_BIASED = 1024
"""Tokens of one `logit_bias`."""
MAX_SCHEMA = 32_768
"""Characters of a JSON schema."""
MAX_OF_KEYWORD = {
    **dict.fromkeys(("minItems", "maxItems", "minProperties", "maxProperties"), 1000),
    **dict.fromkeys(("minLength", "maxLength"), 10_000),
    "multipleOf": 1000,
}
"""Numbers in a schema: a parser is built of so many parts, in up to half a minute for a million."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How tokens are drawn, beyond temperature and top_p. `Request` has these fields as its own.

    The order is that of transformers: repetition penalty, presence and frequency penalty, bias and
    format first, then temperature, `top_k`, `top_p` and `min_p`.
    """

    top_k: int = 0
    """Draw among so many of the likeliest tokens; 0: among all."""
    min_p: float = 0.0
    """Draw among tokens that have at least this share of the likeliest one's probability."""
    repetition_penalty: float = 1.0
    """The logit of each token that prompt or answer has is divided by this where it is positive,
    else multiplied (CTRL, arXiv 1909.05858, section 4.1); 1: nothing changes."""
    presence_penalty: float = 0.0
    """Taken off the logit of each token that the answer has."""
    frequency_penalty: float = 0.0
    """The same once for each time that the answer has it."""
    logit_bias: Mapping[int, int | float] | None = None
    """Added to the logits, by token id."""
    json_schema: Mapping[str, object] | None = None
    """The answer is JSON of this schema, whatever is mixed: other tokens are not drawn.
    `{"type": "object"}`: any object. Where `max_new_tokens` ends it, it is the beginning of one."""
    logprobs: int | None = None
    """How many of the likeliest tokens each step names, 0 to 20, with log probabilities of the
    model itself (at temperature 1, before penalties, bias and format), beside that of its own
    token; None: no log probabilities."""
    prompt_logprobs: bool = False
    """Whether `Generation.prompt_logprobs` has the same of the prompt's tokens; needs `logprobs`.
    The prompt is then read whole, whatever the cache has of it."""

    def __post_init__(self):
        _check_numbers(self)
        if self.logit_bias is not None:
            object.__setattr__(self, "logit_bias", _read_bias(self.logit_bias) or None)
        if self.json_schema is not None:
            object.__setattr__(self, "json_schema", _read_schema(self.json_schema))
        if not isinstance(self.prompt_logprobs, bool):
            raise RamoleError(f"prompt_logprobs={self.prompt_logprobs!r}; give True or False.")
        if self.prompt_logprobs and self.logprobs is None:
            raise RamoleError(
                "prompt_logprobs needs logprobs, the number of likeliest tokens; pass logprobs=0 "
                "or more."
            )

    @property
    def changes_logits(self) -> bool:
        """Whether its logits are not the model's own."""
        return bool(
            self.repetition_penalty != 1
            or self.presence_penalty
            or self.frequency_penalty
            or self.logit_bias
            or self.json_schema is not None
        )


def _check_numbers(given: Sampling) -> None:
    whole = read_whole(given.top_k)
    if whole is None or whole < 0:
        raise RamoleError(f"top_k={given.top_k!r}; give a whole number, 0 for all tokens.")
    if given.logprobs is not None:
        count = read_whole(given.logprobs)
        if count is None or not 0 <= count <= MAX_LOGPROBS:
            raise RamoleError(
                f"logprobs={given.logprobs!r}; give a whole number from 0 to {MAX_LOGPROBS}, or "
                "None for none."
            )
    for name, low, high in (
        ("min_p", 0, 1),
        ("repetition_penalty", 0.01, 100),
        ("presence_penalty", -100, 100),
        ("frequency_penalty", -100, 100),
    ):
        value = getattr(given, name)
        if not _is_number(value) or not low <= value <= high:
            raise RamoleError(f"{name}={value!r}; give a number from {low} to {high}.")


def _read_bias(given: object) -> dict[int, float]:
    wanted = "a mapping from token ids to numbers, such as {42: -100}"
    if not isinstance(given, Mapping):
        raise RamoleError(f"logit_bias={short(given)}; pass {wanted}.")
    if len(given) > MAX_BIASED:
        raise RamoleError(f"logit_bias has {len(given)} tokens, and {MAX_BIASED} is the most.")
    found: dict[int, float] = {}
    for token, bias in given.items():
        known = int(token) if isinstance(token, str) and token.isdecimal() else read_whole(token)
        if known is None or known < 0 or not _is_number(bias):
            raise RamoleError(f"logit_bias has {short(token)}: {short(bias)}; pass {wanted}.")
        found[known] = float(bias)
    return found


def _read_schema(given: object) -> dict[str, object]:
    if not isinstance(given, Mapping):
        raise RamoleError(
            f'json_schema={short(given)}; pass a JSON schema, such as {{"type": "object"}}.'
        )
    try:
        text = json.dumps(given)
    except (TypeError, ValueError, RecursionError):
        raise RamoleError(
            "json_schema is not JSON; pass mappings, lists, texts and numbers."
        ) from None
    if len(text) > MAX_SCHEMA:
        raise RamoleError(
            f"json_schema has {len(text)} characters, and {MAX_SCHEMA} is the most; shorten it."
        )
    read = json.loads(text)
    for name, number in _numbers(read):
        if number > (most := MAX_OF_KEYWORD.get(name, math.inf)):
            raise RamoleError(f"json_schema has {name}={number}, and {most} is the most; lower it.")
    return read


def _numbers(schema: object) -> Iterator[tuple[str, int | float]]:
    """All that stand under a name, however deep."""
    left = [schema]
    while left:
        part = left.pop()
        if isinstance(part, dict):
            yield from ((name, value) for name, value in part.items() if _is_number(value))
            left += part.values()
        elif isinstance(part, list):
            left += part


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
