"""Parameters of several routes: used, cut, ignored with a note, or refused."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ramole_core import Ramole, Request

from ..api.fields import WrongField, read_ask, short as repeated
from .errors import Refused
from .models import ADAPTER, Model

OURS = (
    *("k", "exclude", "weights", "options", "examples", "abstain", "split", "drop_turns"),
    *("effects", "method"),
)
"""Fields of the object `ramole` of a call; `method` only where the model is adapters."""
BOUNDS = {"temperature": (0, 2), "presence_penalty": (-2, 2), "frequency_penalty": (-2, 2)}
"""OpenAI's bounds, where ours are wider."""
BIAS = 100
"""The same, of `logit_bias`, up and down."""
SAMPLING = (*BOUNDS, "top_p", "top_k", "min_p", "repetition_penalty", "logit_bias")
COMMON = ("model", "stream", "stream_options", "ramole", "n", "seed", "stop", *SAMPLING)
NAMES = {
    "history": "messages",
    "json_schema": "response_format",
    "prompt_ids": "prompt",
    "logprobs": "top_logprobs",
}
"""OpenAI's names of a request's fields."""
LABELS = ("user", "safety_identifier", "prompt_cache_key", "metadata")
"""Names of a caller, a cache or a call, which change no answer."""
NO_TOOLS = "the model calls no tools; leave it out"
WRONG: dict[str, tuple[tuple[object, ...], str]] = {
    "tools": (([],), NO_TOOLS),
    "tool_choice": (("none", "auto"), NO_TOOLS),
    "functions": (([],), NO_TOOLS),
    "function_call": (("none", "auto"), NO_TOOLS),
    "modalities": ((["text"],), "answers are text; leave it out"),
    "audio": ((), "answers are text; leave it out"),
    "web_search_options": ((), "the model searches nothing; leave it out"),
    "suffix": (("",), "the model continues a text and fills none in; leave it out"),
}
"""Unsupported parameters that would change the answer: their neutral values, and why no others."""
MAX_STOPS = 4
MAX_ANSWERS = 16
"""Largest `n` of one call."""
MAX_LIKELIEST = 20
"""Most alternatives of each token, at OpenAI."""


@dataclass(frozen=True)
class Call:
    """A call: its requests, and the format of the answer."""

    requests: tuple[Request, ...]
    """All answers of the first prompt, then those of the next."""
    model: str
    stream: bool
    usage: bool
    """Whether a stream ends with the counts of tokens."""
    n: int = 1
    """Answers of each prompt."""
    ignored: tuple[str, ...] = ()
    """Parameters that were ignored."""
    echo: bool = False
    """Whether the prompt stands before its answer."""
    bare: bool = False
    """Whether the answer itself is left out (`max_tokens` 0)."""

    @property
    def request(self) -> Request:
        """The first request."""
        return self.requests[0]


def read_body(body: object, known: Collection[str]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return (parameters, ignored names); `known` are the route's own. Raises Refused."""
    if not isinstance(body, dict):
        raise Refused("The body is no JSON object; send one with model and what is asked.")
    said = {name: value for name, value in body.items() if value is not None}
    ignored = []
    for name, value in said.items():
        if name in known:
            continue
        if name in WRONG:
            fine, why = WRONG[name]
            if not any(value == one and type(value) is type(one) for one in fine):
                raise Refused(f"{name}={short(value)}, but {why}.", param=name)
        elif name not in LABELS:
            ignored.append(shown(name))
    if not isinstance(said.get("model"), str):
        raise Refused("No model is named; give one that /v1/models lists.", param="model")
    return said, tuple(ignored)


def requests_of(
    said: Mapping[str, Any],
    ramole: Ramole,
    model: Model,
    *,
    fields: Mapping[str, Any],
    length: tuple[str, object],
    owner: str | None,
) -> tuple[Request, ...]:
    """Return `n` requests of these parameters: `fields` are those of a request that the route reads
    itself, `length` the parameter of the longest answer, and its value. Raises Refused or
    RamoleError."""
    ours = _ours(said.get("ramole"), said["model"])
    asked = {
        **fields,
        "method": model.method,
        "adapters": model.adapters,
        "max_new_tokens": length[1],
        **{name: said[name] for name in SAMPLING if name in said},
        "seed": _seed(said),
        "stop": _stops(said),
        **ours,
    }
    asked = {name: value for name, value in asked.items() if value is not None}
    if asked.get("top_k") == -1:
        asked["top_k"] = 0  # all, as with vLLM
    _check_bounds(said)
    try:
        one = read_ask(ramole, asked, owner=owner, trace=True)
    except WrongField as error:
        wrong = f"ramole.{error.field}" if error.field in ours else error.field
        wrong = NAMES.get(wrong, length[0] if wrong == "max_new_tokens" else wrong)
        raise Refused(f"{wrong}{error.rest}", param=wrong) from None
    return tuple(_answer(one, number) for number in range(read_whole(said, "n", 1, MAX_ANSWERS)))


def _check_bounds(said: Mapping[str, Any]) -> None:
    for name, (low, high) in BOUNDS.items():
        value = said.get(name, 0)
        if isinstance(value, int | float) and not low <= value <= high:
            raise Refused(f"{name}={short(value)}; give a number from {low} to {high}.", param=name)
    biases = said.get("logit_bias")
    for bias in biases.values() if isinstance(biases, dict) else ():
        if isinstance(bias, int | float) and not -BIAS <= bias <= BIAS:
            wanted = f"give numbers from {-BIAS} to {BIAS}"
            raise Refused(f"logit_bias has {short(bias)}; {wanted}.", param="logit_bias")


def _answer(request: Request, number: int) -> Request:
    """The request of one answer: with another seed than those before it, or none."""
    if request.seed is None or not number:
        return request
    return replace(request, seed=(request.seed + number) % 2**63)


def _seed(said: Mapping[str, Any]) -> object:
    """-1 is a new one each time, as with llama.cpp; other negative ones are seeds too."""
    seed = said.get("seed")
    if type(seed) is not int or seed >= 0:
        return seed
    return None if seed == -1 else seed % 2**63


def _stops(said: Mapping[str, Any]) -> object:
    stop = said.get("stop")
    if isinstance(stop, str):
        return [stop]
    if isinstance(stop, list) and len(stop) > MAX_STOPS:
        raise Refused(
            f"stop has {len(stop)} strings, and {MAX_STOPS} is the most; leave some out.",
            param="stop",
        )
    return stop


def _ours(given: object, model: str) -> dict[str, object]:
    """The object `ramole`."""
    if given is None:
        return {}
    if not isinstance(given, dict) or not given.keys() <= set(OURS):
        raise Refused(
            f"ramole={short(given)}; give an object of {', '.join(OURS)}, or leave it out.",
            param="ramole",
        )
    if "method" in given and not model.startswith(ADAPTER):
        raise Refused(
            "ramole.method says how named adapters are mixed, but the model is a method already; "
            "leave one of them out.",
            param="ramole.method",
        )
    return {name: value for name, value in given.items() if value is not None}


def read_usage(said: Mapping[str, Any], *, stream: bool) -> bool:
    """Whether a stream ends with the counts of tokens; raises Refused."""
    options = said.get("stream_options")
    if options is None:
        return False
    if not stream:
        raise Refused("stream_options needs stream=true; add it.", param="stream_options")
    usage = options.get("include_usage", False) if isinstance(options, dict) else None
    if not isinstance(usage, bool):
        raise Refused(
            f"stream_options={short(options)}; give an object with include_usage, true or false.",
            param="stream_options",
        )
    return usage


def read_switch(said: Mapping[str, Any], name: str) -> bool:
    """true or false, false by default; raises Refused."""
    value = said.get(name, False)
    if not isinstance(value, bool):
        raise Refused(f"{name}={short(value)}; give true or false.", param=name)
    return value


def read_whole(said: Mapping[str, Any], name: str, low: int, high: int) -> int:
    """A whole number in this range, `low` by default; raises Refused."""
    value = said.get(name, low)
    if type(value) is not int or not low <= value <= high:
        wanted = f"give a whole number from {low} to {high}"
        raise Refused(f"{name}={short(value)}; {wanted}.", param=name)
    return value


def has_half(text: str) -> bool:
    """Whether a text has half a character in it, which no encoding has."""
    return not text.isascii() and text.encode("utf-8", "replace").decode() != text


def shown(name: str) -> str:
    """Return the name of an ignored parameter, as the answer lists it."""
    return name[:100].encode("utf-8", "replace").decode()


def short(value: object) -> str:
    """Return a value as an error quotes it, `true` as in JSON."""
    return str(value).lower() if isinstance(value, bool) else repeated(value)
