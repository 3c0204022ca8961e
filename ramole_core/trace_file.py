"""A finished answer and its trace as one file: `.npz` for numpy, `.json` for everything else.

Both hold the same fields, which `trace.schema.json` describes and `python -m ramole_core trace`
checks. The npz opens with `numpy.load(path)`, which needs no pickle:

    version         4; 3 has no effects, 2 no request and no facts; files without one are older
                    still: their weights are 0 where an adapter lacks the module, and they have
                    no contribution and no present
    request         the request without its defaults; `Request(**request)` repeats it
    facts           base model, checksums of base, trained weights and adapters
    weights         float16 [T, layer, module, k], row t the gate that predicts token t+1
    contribution    float16 [T, layer, module, k], |weight times the adapter's update| / |the
                    layer's output|: what came of it
    present         bool [T, layer, module, k], which adapter has the module; in the json 0 and 1
    shares          float32 [T, k], each adapter's share of what all contributed to a token
    effects         float32 [T - prompt_length, k], what each adapter did to each token of the
                    answer, in nats; 0 for adapters of earlier turns alone
    logprob         float32 [T - prompt_length], log probability of each token in the run
    base_logprob    float32 [T - prompt_length], the base's; logprob is this and the sum of the
                    effects
    subset_logprob  float32 [T - prompt_length, 2^k], log probability of each token with each
                    subset of adapters: column c has those whose bit is set in c; absent also in
                    older files, and of more than 4 adapters
    effects_by      "shapley", or "leave_one_out" of more than 4 adapters, whose sum is another one
    token_ids       int64 [T], the prompt first
    tokens          their texts [T]
    prompt_length   tokens of the prompt
    adapters        names [k]
    scores          float32 [k], nan: none
    layers          numbers [layer]
    modules         names [module]
    answer          text
    finish_reason   text

In the npz, request and facts are JSON in a string. Where effects were not requested, `effects` and
the four fields below it are absent (in the json null).
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import orjson

from ramole_core.effects import among, rule_of
from ramole_core.errors import RamoleError
from ramole_core.facts import asked_fields
from ramole_core.request import Generation, Request, Trace

VERSION = 4
DTYPES = {
    "adapters": np.str_,
    "scores": np.float32,
    "tokens": np.str_,
    "token_ids": np.int64,
    "layers": np.int64,
    "modules": np.str_,
}
"""Dtypes of the lists, in the npz."""


def write_trace(
    generation: Generation,
    path: Path | str,
    *,
    request: Request | None = None,
    facts: Mapping[str, object] | None = None,
) -> Path:
    """Write the trace of an answer to `path`, whose ending decides the format; returns the path.

    `request` is the request, `facts` the model's and adapters' (`facts_of`). Raises RamoleError
    where the answer has no trace, or where the ending is neither.
    """
    path = Path(path)
    if generation.parts:  # the answer to the last part, in whose trace the others are turns
        generation = generation.parts[-1]
    if generation.trace is None:
        raise RamoleError("This answer has no trace; ask again with trace=True.")
    fields = _fields(generation, generation.trace, _said(request, facts))
    if path.suffix == ".npz":
        there = {name: value for name, value in fields.items() if value is not None}
        arrays = {name: np.array(value, DTYPES.get(name)) for name, value in there.items()}
        np.savez_compressed(path, allow_pickle=False, **arrays)
    elif path.suffix == ".json":
        told = {name: _as_json(name, value) for name, value in fields.items()}
        path.write_bytes(orjson.dumps(told, default=list, option=orjson.OPT_SERIALIZE_NUMPY))
    else:
        raise RamoleError(f"A trace is written as .npz or .json, not {path.name!r}; rename it.")
    return path


def _fields(generation: Generation, trace: Trace, said: Mapping[str, str]) -> dict[str, object]:
    """Return the fields of both formats."""
    earlier = len(trace.adapters) - len(generation.scores)  # adapters of other turns stand behind
    return {
        "version": VERSION,
        **said,
        "answer": generation.text,
        "finish_reason": generation.finish_reason,
        "adapters": trace.adapters,
        "scores": [*generation.scores, *[math.nan] * earlier],
        "prompt_length": trace.prompt_length,
        "tokens": trace.tokens,
        "token_ids": trace.token_ids,
        "layers": trace.layers,
        "modules": trace.modules,
        "weights": trace.weights,
        "contribution": trace.contribution,
        "present": trace.present,
        "shares": trace.shares,
        **_effects(generation, trace),
    }


def _as_json(name: str, value: object) -> object:
    if name in ("request", "facts"):
        return orjson.Fragment(str(value))
    if name == "scores" and isinstance(value, list):
        return [None if math.isnan(score) else score for score in value]
    if not isinstance(value, np.ndarray):
        return value
    if name == "present":
        return value.astype(np.int8)
    digits = 6 if name == "contribution" else 4
    return np.ascontiguousarray(np.round(value.astype(np.float64), digits))


def _said(request: Request | None, facts: Mapping[str, object] | None) -> dict[str, str]:
    """The request and the facts of the model as JSON, null where not given: by `json`, which takes
    numbers of any size, and tokens as keys."""
    told = {
        "request": None if request is None else asked_fields(request),
        "facts": None if facts is None else dict(facts),
    }
    return {name: json.dumps(value) for name, value in told.items()}


def _effects(generation: Generation, trace: Trace) -> dict[str, np.ndarray | str | None]:
    """Return the fields of effects; adapters of the trace that the answer lacks have 0."""
    effects = generation.effects
    if effects is None:
        return dict.fromkeys(("effects", "logprob", "base_logprob", "subset_logprob", "effects_by"))
    T = len(trace.tokens) - trace.prompt_length  # of an answer in parts the trace is the last one's
    told = np.zeros((T, len(trace.adapters)), np.float32)
    at = [trace.adapters.index(name) for name in generation.adapters]
    told[:, at] = effects[-T:]
    assert generation.logprob is not None and generation.base_logprob is not None
    subsets = among(generation.subset_logprob, at, len(trace.adapters))
    return {
        "effects": told,
        "logprob": generation.logprob[-T:],
        "base_logprob": generation.base_logprob[-T:],
        "subset_logprob": None if subsets is None else subsets[-T:],
        "effects_by": rule_of(effects.shape[1]),
    }
