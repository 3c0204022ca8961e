"""Turn a call of `/v1/chat/completions`, or of `/v1/completions`, into requests."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

from ramole_core import Ramole

from .errors import Refused
from .messages import read_messages
from .models import read_model
from .parameters import (
    COMMON,
    MAX_LIKELIEST,
    Call,
    read_body,
    read_switch,
    read_usage,
    read_whole,
    requests_of,
    short,
)

LENGTHS = ("max_completion_tokens", "max_tokens")
CHAT = (*COMMON, *LENGTHS, "messages", "logprobs", "top_logprobs", "response_format")
TEXT = (*COMMON, "prompt", "max_tokens", "echo", "logprobs", "best_of")
"""Parameters of either route."""
FORMATS = "text, json_object, or json_schema with json_schema.schema"
MAX_REQUESTS = 64
"""Prompts times answers of one call."""
WANTED = "a text, a list of texts, a list of token ids, or a list of such lists"
LENGTH = 16
"""Default length of an answer in tokens, as at OpenAI."""


def read_call(body: object, ramole: Ramole, owner: str | None) -> Call:
    """The chat of this JSON; raises Refused or RamoleError where it cannot be done."""
    said, ignored = read_body(body, CHAT)
    model = read_model(said["model"], ramole, owner)
    talk = read_messages(said.get("messages"))
    history = talk.history
    if model.method == "base":  # answers of before keep their text, not their adapters
        history = [turn[:2] for turn in history]
    requests = requests_of(
        said,
        ramole,
        model,
        fields={
            "prompt": talk.prompt,
            "system": talk.system,
            "history": history,
            "messages": talk.messages,
            "logprobs": _logprobs(said),
            "json_schema": _schema(said.get("response_format")),
        },
        length=_length(said, ramole.settings.max_new_tokens),
        owner=owner,
    )
    if talk.system == "":  # no system message at all, where null is the template's own
        requests = tuple(replace(request, system="") for request in requests)
    stream = read_switch(said, "stream")
    return Call(
        requests,
        said["model"],
        stream,
        read_usage(said, stream=stream),
        n=len(requests),
        ignored=(*ignored, *talk.ignored),
    )


def _length(said: Mapping[str, Any], most: int) -> tuple[str, object]:
    """Return (its parameter, the most tokens of the answer); by default a request's limit."""
    given = {name: said[name] for name in LENGTHS if name in said}
    if len({repr(value) for value in given.values()}) > 1:
        raise Refused(
            "max_tokens and max_completion_tokens say different lengths; leave one of them out.",
            param="max_tokens",
        )
    name = next(iter(given), LENGTHS[0])
    return name, _cut(given.get(name, most), most)


def _cut(length: object, most: int) -> object:
    """Return the longest answer in tokens: the requested length, at most the server's."""
    return min(length, most) if type(length) is int else length


def _logprobs(said: Mapping[str, Any]) -> int | None:
    wanted = read_switch(said, "logprobs")
    likeliest = read_whole(said, "top_logprobs", 0, MAX_LIKELIEST)
    if likeliest and not wanted:
        raise Refused("top_logprobs needs logprobs=true; add it.", param="top_logprobs")
    return likeliest if wanted else None


def _schema(given: object) -> object:
    """The JSON schema of an answer; None: any text."""
    kind = given.get("type") if isinstance(given, dict) else None
    if given is None or kind == "text":
        return None
    if kind == "json_object":
        return {"type": "object"}
    named = given.get("json_schema") if isinstance(given, dict) else None
    schema = named.get("schema") if isinstance(named, dict) else None
    if kind != "json_schema" or not isinstance(schema, dict):
        raise Refused(
            f"response_format={short(given)}; its type is {FORMATS}.", param="response_format"
        )
    return schema


def read_prompts(body: object, ramole: Ramole, owner: str | None) -> Call:
    """The texts, or tokens of the base, that are continued as they are; raises Refused or
    RamoleError. The model has to be loaded: tokens are spelled by its tokenizer."""
    said, ignored = read_body(body, TEXT)
    model = read_model(said["model"], ramole, owner)
    prompts = _prompts(said.get("prompt"))
    echo, stream = read_switch(said, "echo"), read_switch(said, "stream")
    logprobs = read_whole(said, "logprobs", 0, MAX_LIKELIEST) if "logprobs" in said else None
    if stream and echo and logprobs is not None:
        raise Refused(
            "echo with logprobs comes whole; leave one of echo, logprobs and stream out.",
            param="stream",
        )
    if said.get("best_of", 1) not in (1, said.get("n", 1)):
        raise Refused("best_of is not n; give n, and choose the best yourself.", param="best_of")
    length = _cut(said.get("max_tokens", LENGTH), ramole.settings.max_new_tokens)
    bare = echo and type(length) is int and length == 0
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
            length=("max_tokens", 1 if bare else length),
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


def _known(ids: tuple[int, ...], ramole: Ramole) -> tuple[int, ...]:
    facts, largest = ramole.model_facts, max(ids)
    if facts is not None and largest >= facts.vocabulary:
        raise Refused(
            f"prompt has token {short(largest)}, but the base model's tokens are 0 to "
            f"{facts.vocabulary - 1}; give tokens of this base.",
            param="prompt",
        )
    return ids


def _is_tokens(given: object) -> bool:
    numbers = given if isinstance(given, list) else []
    return bool(numbers) and all(type(one) is int and one >= 0 for one in numbers)
