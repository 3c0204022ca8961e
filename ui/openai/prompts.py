"""A call of `/v1/completions`: texts, or tokens of the base, that are continued as they are."""

from typing import TYPE_CHECKING, cast

from .errors import Refused
from .models import read_model
from .parameters import (
    COMMON,
    Call,
    cut_length,
    read_body,
    read_likeliest,
    read_switch,
    read_usage,
    requests_of,
    short,
)

if TYPE_CHECKING:
    from ramole_core import Ramole

USED = (*COMMON, "prompt", "max_tokens", "echo", "logprobs", "best_of")
MAX_REQUESTS = 64
"""Prompts times answers of one call."""
WANTED = "a text, a list of texts, a list of token ids, or a list of such lists"
LENGTH = 16
"""Tokens of an answer where nothing is said, as OpenAI has it."""


def read_prompts(body: object, ramole: "Ramole", owner: str | None) -> Call:
    """The call of this JSON; raises Refused or RamoleError where it cannot be done. The model has
    to be loaded: tokens are spelled by its tokenizer."""
    said, ignored = read_body(body, USED)
    model = read_model(said["model"], ramole, owner)
    prompts = _prompts(said.get("prompt"))
    echo, stream = read_switch(said, "echo"), read_switch(said, "stream")
    logprobs = read_likeliest(said, "logprobs") if "logprobs" in said else None
    if stream and echo and logprobs is not None:
        raise Refused(
            "echo with logprobs comes whole; leave one of echo, logprobs and stream out.",
            param="stream",
        )
    if said.get("best_of", 1) not in (1, said.get("n", 1)):
        raise Refused("best_of is not n; give n, and choose the best yourself.", param="best_of")
    length = cut_length(
        "max_tokens", said.get("max_tokens", LENGTH), ramole.settings.max_new_tokens
    )
    bare = echo and length[1] == 0 and not isinstance(length[1], bool)
    requests = []
    for prompt in prompts:
        ids = () if isinstance(prompt, str) else _known(tuple(prompt), ramole)
        requests += requests_of(
            said,
            ramole,
            model,
            fields={
                "prompt": ramole.decode(ids) if ids else prompt,
                "raw": True,
                "prompt_ids": ids,
                "logprobs": logprobs,
                "prompt_logprobs": echo and logprobs is not None,
            },
            length=(length[0], 1) if bare else length,
            owner=owner,
        )
        if len(requests) > MAX_REQUESTS:
            raise Refused(
                f"{len(prompts)} prompts with n={short(said.get('n', 1))} are more than "
                f"{MAX_REQUESTS} answers; split them.",
                param="prompt",
            )
    usage = read_usage(said, stream=stream)
    n = len(requests) // len(prompts)
    return Call(tuple(requests), said["model"], stream, usage, n, ignored, echo, bare)


def _prompts(given: object) -> list[str | list[int]]:
    found = given if isinstance(given, list) and not _is_tokens(given) else [given]
    if not found or not all(isinstance(one, str) or _is_tokens(one) for one in found):
        raise Refused(f"prompt={short(given)}; give {WANTED}.", param="prompt")
    return cast(list[str | list[int]], found)


def _known(ids: tuple[int, ...], ramole: "Ramole") -> tuple[int, ...]:
    """The tokens; raises Refused where the base model lacks one."""
    facts, largest = ramole.model_facts, max(ids)
    if facts is not None and largest >= facts.vocabulary:
        raise Refused(
            f"prompt has token {short(largest)}, but the base model's tokens are 0 to "
            f"{facts.vocabulary - 1}; give tokens of this base.",
            param="prompt",
        )
    return ids


def _is_tokens(given: object) -> bool:
    return (
        isinstance(given, list)
        and bool(given)
        and all(isinstance(one, int) and not isinstance(one, bool) and one >= 0 for one in given)
    )
