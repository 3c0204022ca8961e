"""Check that the fields of a request do not contradict each other."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ramole_core.errors import RamoleError

if TYPE_CHECKING:
    from ramole_core.request import Request

WHOLE = (
    *("adapters", "mix", "examples", "raw", "prefix_ids", "without", "later_weights"),
    *("messages", "prompt_logprobs"),
)
"""Fields that hold for all of an answer; a request with one is not answered in parts."""


def whole_fields(request: "Request") -> list[str]:
    """Return the request's fields that hold for all of an answer."""
    schema = ["json_schema"] if request.json_schema is not None else []
    return [*(name for name in WHOLE if getattr(request, name)), *schema]


def check_request(request: "Request") -> None:
    """Raise RamoleError with the first contradiction."""
    for contradiction in _contradictions(request):
        raise RamoleError(contradiction)


def _contradictions(r: "Request") -> Iterator[str]:
    if not (r.prompt.strip() or r.prompt_ids):
        yield "The prompt is empty; type one."
    if r.prompt_logprobs and r.logprobs is None:
        yield (
            "prompt_logprobs needs logprobs, the number of likeliest tokens; pass logprobs=0 or "
            "more."
        )
    if r.prompt_ids and not r.raw:
        yield (
            "prompt_ids are the prompt as it is, without the chat template; pass raw=True with "
            "them."
        )
    other = [name for name in ("system", "history", "raw", "drop_turns") if getattr(r, name)]
    if r.messages and other:
        yield (
            f"messages is the whole conversation, but {', '.join(other)} came as well; leave one "
            "of them out."
        )
    if r.json_schema is not None and r.ignore_eos:
        yield (
            "ignore_eos=True, but an answer of json_schema ends with the JSON; leave one of them "
            "out."
        )
    if r.adapters is not None:
        if not r.adapters:
            yield "adapters is an empty list; name at least one, or pass None."
        if len(set(r.adapters)) < len(r.adapters):
            yield f"adapters names one twice: {list(r.adapters)}."
        if both := sorted(set(r.adapters) & set(r.exclude)):
            yield f"{both} stand in both adapters and exclude; take them out of one."
    if r.weights is not None:
        if r.adapters is None:
            yield "weights needs adapters: name the adapters they belong to."
        if len(r.weights) != (count := len(r.adapters or ())):
            yield f"{len(r.weights)} weights for {count} adapters; give one for each."
        if r.examples:
            yield (
                "weights and examples came, but weights are what is found on examples; leave one "
                "of them out."
            )
    if r.mix is not None:
        if not r.mix.strip():
            yield f"mix={r.mix!r}; give the name of a mix that was kept."
        said = [name for name in ("adapters", "weights", "examples", "exclude") if getattr(r, name)]
        if said:
            yield (
                f"mix={r.mix!r} says which adapters and weights, but {', '.join(said)} came as "
                "well; leave one of them out."
            )
    for name in ("history", "system"):
        if r.raw and getattr(r, name):
            yield (
                f"{name} needs the chat template, but raw=True leaves it out; leave one of them "
                "out."
            )
    if r.abstain and r.adapters:
        yield "abstain=True, but adapters are named, and these answer; leave one of them out."
    if r.split and (whole := whole_fields(r)):
        yield (
            f"split=True finds adapters for each part of the prompt, but {', '.join(whole)} came, "
            "which holds for all of it; leave one of them out."
        )
    if len(r.prefix_ids) >= r.max_new_tokens:
        yield (
            f"prefix_ids has {len(r.prefix_ids)} tokens of the answer, and max_new_tokens="
            f"{r.max_new_tokens} counts them in, so it has ended; ask for more, or give fewer."
        )
