"""A request in words: its mixing, and its decoding."""

from ramole_core import Request


def mixed_words(request: Request) -> str:
    """Method, k and its options, or the adapters that were named."""
    said = [request.method]
    if request.mix is not None:
        said.append(f"the mix {request.mix}")
    elif request.adapters is not None:
        each = request.weights or [None] * len(request.adapters)
        named = zip(request.adapters, each, strict=True)
        said += [name if w is None else f"{name} {w:g}".replace("-", "−") for name, w in named]
    elif request.method != "base":
        said.append(f"k = {request.k}")
    said += [f"{name} = {value}" for name, value in (request.options or {}).items()]
    said += [f"never {name}" for name in request.exclude]
    return ", ".join(said)


def decoding_words(request: Request) -> str:
    """The decoding in words, and the most tokens."""
    said = ["greedy"]
    if request.temperature:
        said = [f"temperature {request.temperature:g}", f"top-p {request.top_p:g}"]
        said.append("no seed" if request.seed is None else f"seed {request.seed}")
    said += ["no chat template"] if request.raw else []
    said += ["a system prompt"] if request.system else []
    return ", ".join([*said, f"at most {request.max_new_tokens} tokens"])
