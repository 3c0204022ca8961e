"""`/ask`: its parameters and their help are derived from the fields of a request."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import gradio as gr

from ramole_core import Ramole, Request, askable_fields

FIRST = (
    "prompt", "method", "k", "adapters", "weights", "exclude", "max_new_tokens", "temperature",
    "top_p", "seed", "stop", "system", "raw", "options", "history", "drop_turns", "prefix_ids",
    "without", "later_weights", "abstain", "examples", "mix",
)  # fmt: skip
"""Order of positional arguments; fields that were added later come after these."""
TYPES: Mapping[str, Any] = {
    "text": str,
    "word": str,
    "whole": int,
    "number": float,
    "truth": bool,
    "words": list[str],
    "texts": list[str],
    "numbers": list[float],
    "options": dict | str,
    "parts": list,
}
OBJECTS = ("later_weights", "logit_bias", "json_schema")
ABOUT = """
Answer a prompt with the adapters of the pool that fit it, mixed token by token. Streams the
text so far; the last answer also has the adapters that were used and how it ended. Waits
while the model loads, and in the queue where many ask at once: it then tells its place.
Where weights are found on examples first, it tells the step and the loss so far.
"""
RETURNS = """
Returns:
    The text so far.
    An object with adapters, method, finish_reason, tokens, seconds; or its place, or empty.
"""
Answer = Callable[[Mapping[str, object], gr.Request | None], Iterator[Any]]


def ask_endpoint(answer: Answer, ramole: Ramole) -> Callable[..., Iterator[Any]]:
    """A function for `gr.api` with a parameter for each field; `answer` gets the given ones."""
    fields = {**askable_fields()}
    fields["max_new_tokens"] = fields["max_new_tokens"][0], usual_length(ramole)
    names = [*FIRST, *(name for name in fields if name not in FIRST)]

    def ask(*given, **named) -> Iterator[Any]:
        request = named.pop("request", given[len(names)] if len(given) > len(names) else None)
        yield from answer(dict(zip(names, given, strict=False)) | named, request)

    parameters = [_parameter(name, *fields[name]) for name in names]
    parameters.append(_positional("request", None, gr.Request | None))
    vars(ask)["__signature__"] = inspect.Signature(parameters, return_annotation=tuple[str, dict])
    ask.__annotations__ = {one.name: one.annotation for one in parameters}
    rows = ramole.methods()
    options = (f"{row.name}: {', '.join(map(str, row.options))}" for row in rows if row.options)
    more = {
        "method": f" One of {', '.join(row.name for row in rows)}.",
        "options": f" {'; '.join(options)}",
        "examples": f" For {', '.join(row.name for row in rows if row.fits)}.",
    }
    said = [f"    {name}: {fields[name][0].help}{more.get(name, '')}" for name in names]
    ask.__doc__ = "\n".join([ABOUT, "Args:", *said, RETURNS])
    return ask


def usual_length(ramole: Ramole) -> int:
    """Default length of an answer: a request's default, or the server's limit if that is less."""
    return min(Request.max_new_tokens, ramole.settings.max_new_tokens)


def _parameter(name: str, takes: Any, default: object) -> inspect.Parameter:
    kind = dict if name in OBJECTS else TYPES[takes.kind]
    if name == "prompt":
        return _positional(name, inspect.Parameter.empty, kind)
    unsaid = None if default in (None, ()) else default
    return _positional(name, unsaid, kind | None if unsaid is None else kind)


def _positional(name: str, default: object, kind: Any) -> inspect.Parameter:
    where = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return inspect.Parameter(name, where, default=default, annotation=kind)
