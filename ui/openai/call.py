"""A call of `/v1/chat/completions`: every parameter works, or is refused in one sentence."""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ramole_core import Request

from ..api.fields import Ask, WrongField, checked, refuse_unknown_options
from .errors import Refused
from .messages import read_messages
from .models import ADAPTER, read_model

if TYPE_CHECKING:
    from ramole_core import Ramole

OURS = (
    *("k", "exclude", "weights", "options", "examples", "abstain", "drop_turns", "effects"),
    "method",
)
"""What the object `ramole` of a call may say; `method` only where the model is adapters."""
SAMPLING = ("temperature", "top_p", "seed", "stop")
LENGTHS = ("max_completion_tokens", "max_tokens")
USED = ("model", "messages", "stream", "stream_options", "ramole", *SAMPLING, *LENGTHS)
LABELS = ("user", "safety_identifier", "prompt_cache_key")
"""They name a caller or a cache, and change no answer anywhere."""
ONE_ANSWER = "a call gets one answer; ask again, with another seed"
NO_TOOLS = "the model calls no tools; leave it out"
LIKELIEST = "tokens come without probabilities; leave it out"
AS_IT_IS = "tokens are drawn by temperature and top_p alone; leave it out"
ONLY_TEXT = "answers are text; leave it out"
NOTHING_KEPT = "nothing is kept here; leave it out"
IDLE: dict[str, tuple[tuple[object, ...], str]] = {
    "n": ((1,), ONE_ANSWER),
    "frequency_penalty": ((0,), AS_IT_IS),
    "presence_penalty": ((0,), AS_IT_IS),
    "logit_bias": (({},), AS_IT_IS),
    "logprobs": ((False,), LIKELIEST),
    "top_logprobs": ((0,), LIKELIEST),
    "tools": (([],), NO_TOOLS),
    "tool_choice": (("none", "auto"), NO_TOOLS),
    "parallel_tool_calls": ((True, False), NO_TOOLS),
    "functions": (([],), NO_TOOLS),
    "function_call": (("none", "auto"), NO_TOOLS),
    "response_format": (({"type": "text"},), ONLY_TEXT),
    "modalities": ((["text"],), ONLY_TEXT),
    "audio": ((), ONLY_TEXT),
    "prediction": ((), "pass tokens that are given to /ask, as prefix_ids"),
    "web_search_options": ((), "the model searches nothing; leave it out"),
    "reasoning_effort": (("none",), "the model does not reason first; leave it out"),
    "verbosity": (("medium",), "say in the prompt how long the answer should be"),
    "service_tier": (("auto", "default"), "all wait in one queue; leave it out"),
    "store": ((False,), NOTHING_KEPT),
    "metadata": (({},), NOTHING_KEPT),
    "prompt_cache_retention": ((), NOTHING_KEPT),
    "prompt_cache_options": (({},), NOTHING_KEPT),
    "moderation": ((), "nothing is moderated here; leave it out"),
}
"""What OpenAI has and this has not: the values that ask for nothing, and why no others."""


@dataclass(frozen=True)
class Call:
    """What is asked, and how it is answered."""

    request: Request
    model: str
    stream: bool
    usage: bool
    """Whether a stream ends with the counts of tokens."""


def read_call(body: object, ramole: "Ramole", owner: str | None) -> Call:
    """The call of this JSON; raises Refused or RamoleError where it cannot be done."""
    if not isinstance(body, dict):
        raise Refused("The body is no JSON object; send one with model and messages.")
    said = {name: value for name, value in body.items() if value is not None}
    _refuse_idle(said)
    name = said.get("model")
    if not isinstance(name, str):
        raise Refused("No model is named; give one that /v1/models lists.", param="model")
    model, ours = read_model(name, ramole, owner), _ours(said.get("ramole"), name)
    talk = read_messages(said.get("messages"))
    history = talk.history
    if model.method == "base":  # answers of before keep their text, not their adapters
        history = [turn[:2] for turn in history]
    stop = said.get("stop")
    length, most = _length(said, ramole.settings.max_new_tokens)
    asked: dict[str, Any] = {
        "prompt": talk.prompt,
        "method": model.method,
        "system": talk.system,
        "history": history,
        "adapters": model.adapters,
        "max_new_tokens": most,
        **{name: said[name] for name in SAMPLING if name in said},
        **({"stop": [stop]} if isinstance(stop, str) else {}),
        **ours,
    }
    try:
        fields = checked(Ask, **asked)
    except WrongField as error:
        wrong = f"ramole.{error.field}" if error.field in ours else error.field
        wrong = {"max_new_tokens": length, "history": "messages"}.get(wrong, wrong)
        raise Refused(f"{wrong}{error.rest}", param=wrong) from None
    refuse_unknown_options(ramole, fields)
    stream = _switch(said, "stream")
    return Call(fields.request(owner, trace=True), name, stream, _usage(said, stream))


def _refuse_idle(said: dict[str, Any]) -> None:
    for name, value in said.items():
        if name in LABELS:
            if not isinstance(value, str):
                raise Refused(f"{name}={_short(value)}; give a text.", param=name)
        elif name in IDLE:
            fine, why = IDLE[name]
            if not any(value == one and type(value) in _kinds(one) for one in fine):
                raise Refused(f"{name}={_short(value)}, but {why}.", param=name)
        elif name not in USED:
            known = "the API page of the documentation names those that work"
            raise Refused(
                f"There is no parameter {_short(name)}; {known}.",
                param=name,
                code="unknown_parameter",
            )


def _kinds(value: object) -> tuple[type, ...]:
    """Of JSON: a number is one with a point or without, and true is none."""
    return (int, float) if type(value) is int else (type(value),)


def _ours(given: object, model: str) -> dict[str, object]:
    """The object `ramole`."""
    if given is None:
        return {}
    names = ", ".join(OURS)
    if not isinstance(given, dict) or not given.keys() <= set(OURS):
        raise Refused(
            f"ramole={_short(given)}; give an object of {names}, or leave it out.", param="ramole"
        )
    if "method" in given and not model.startswith(ADAPTER):
        raise Refused(
            "ramole.method says how named adapters are mixed, but the model is a method already; "
            "leave one of them out.",
            param="ramole.method",
        )
    return {name: value for name, value in given.items() if value is not None}


def _length(said: dict[str, Any], most: int) -> tuple[str, object]:
    """(the parameter that says it, the most tokens of the answer); by default what a request may
    have at most."""
    given = {name: said[name] for name in LENGTHS if name in said}
    if len({repr(value) for value in given.values()}) > 1:
        raise Refused(
            "max_tokens and max_completion_tokens say different lengths; leave one of them out.",
            param="max_tokens",
        )
    name = next(iter(given), LENGTHS[0])
    value = given.get(name, most)
    if isinstance(value, int) and value > most:
        raise Refused(
            f"{name}={_short(value)}, but this server gives at most {most} tokens; ask for fewer.",
            param=name,
        )
    return name, value


def _usage(said: dict[str, Any], stream: bool) -> bool:
    options = said.get("stream_options")
    if options is None:
        return False
    if not stream:
        raise Refused("stream_options needs stream=true; add it.", param="stream_options")
    fine = {"include_usage": (True, False), "include_obfuscation": (False,)}
    good = isinstance(options, dict) and all(
        isinstance(value, bool) and value in fine.get(name, ()) for name, value in options.items()
    )
    if not good:
        raise Refused(
            f"stream_options={_short(options)}; give include_usage, true or false, alone.",
            param="stream_options",
        )
    return options.get("include_usage", False)


def _switch(said: dict[str, Any], name: str) -> bool:
    value = said.get(name, False)
    if not isinstance(value, bool):
        raise Refused(f"{name}={_short(value)}; give true or false.", param=name)
    return value


def _short(value: object) -> str:
    text = json.dumps(value) if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
