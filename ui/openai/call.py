"""Turn a call of `/v1/chat/completions` into requests."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .errors import Refused
from .messages import read_messages
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

LENGTHS = ("max_completion_tokens", "max_tokens")
USED = (*COMMON, *LENGTHS, "messages", "logprobs", "top_logprobs", "response_format")
FORMATS = "text, json_object, or json_schema with json_schema.schema"


def read_call(body: object, ramole: "Ramole", owner: str | None) -> Call:
    """The call of this JSON; raises Refused or RamoleError where it cannot be done."""
    said, ignored = read_body(body, USED)
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
    """(the parameter that says it, the most tokens of the answer); by default what a request may
    have at most."""
    given = {name: said[name] for name in LENGTHS if name in said}
    if len({repr(value) for value in given.values()}) > 1:
        raise Refused(
            "max_tokens and max_completion_tokens say different lengths; leave one of them out.",
            param="max_tokens",
        )
    name = next(iter(given), LENGTHS[0])
    return cut_length(name, given.get(name, most), most)


def _logprobs(said: Mapping[str, Any]) -> int | None:
    wanted, likeliest = read_switch(said, "logprobs"), read_likeliest(said, "top_logprobs")
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
